//! What an authorization server offers ([RFC 8414], `OpenID` Connect Discovery 1.0).
//!
//! [RFC 8414]: https://www.rfc-editor.org/rfc/rfc8414

use device_flow::client::{DeviceFlow, Endpoints};
use device_flow::wire::metadata::{Metadata, MetadataError};
use serde_json::Value;

use crate::Context;
use crate::ending::{Ending, Exit, sentence};
use crate::http::is_unavailable;

/// The published metadata of a server.
pub(crate) struct Server(pub(crate) Metadata);

/// What a command needs the server for. A server may no longer offer one of these and still offer another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// Holds the device authorization endpoint of the command line, for metadata that have none.
    Login(Option<&'a str>),
    Renewal,
    Revocation,
}

/// Reads the metadata from the place of RFC 8414, or else from that of `OpenID` Connect.
pub(crate) fn discover(context: &Context, wanted: Wanted<'_>) -> Result<Server, Ending> {
    let issuer = &context.issuer;
    let places = [Metadata::well_known(issuer), Metadata::openid(issuer)];
    let mut found = false;
    for place in places {
        let place = place.map_err(untrusted)?;
        let answer = context.http.get(&place).map_err(Ending::no_answer)?;
        match answer.status().as_u16() {
            200 => {}
            _ if is_unavailable(&answer) => return Err(Ending::unavailable()),
            300..=399 => {
                return Err(Ending::new(
                    Exit::Untrusted,
                    "The server redirects the request for its metadata. Redirects are not followed: give the issuer's own address with --issuer.",
                ));
            }
            _ => continue,
        }
        found = true;
        let metadata = Metadata::read(answer.body(), issuer).map_err(|error| {
            if error == MetadataError::Issuer {
                of_another_issuer(answer.body())
            } else {
                untrusted(error)
            }
        })?;
        let server = Server(wanted.complete(metadata)?);
        let mut has_all = true;
        for name in wanted.endpoints() {
            has_all &= server.endpoint(name)?.is_some();
        }
        if has_all {
            return Ok(server);
        }
    }
    Err(if found {
        wanted.lacking()
    } else {
        let sentence = "There is no authorization server at this address.";
        Ending::new(Exit::Refused, sentence)
    })
}

impl Wanted<'_> {
    /// Returns the endpoints that this needs.
    const fn endpoints(self) -> &'static [&'static str] {
        match self {
            Self::Login(_) => &["device_authorization_endpoint", "token_endpoint"],
            Self::Renewal => &["token_endpoint"],
            Self::Revocation => &["revocation_endpoint"],
        }
    }

    /// Adds the endpoint of the command line.
    fn complete(self, metadata: Metadata) -> Result<Metadata, Ending> {
        match self {
            Self::Login(Some(url)) => {
                metadata
                    .or_device_authorization_endpoint(url)
                    .map_err(|error| {
                        let said = format!("--device-authorization-endpoint: {error}");
                        Ending::new(Exit::Usage, said)
                    })
            }
            Self::Login(None) | Self::Renewal | Self::Revocation => Ok(metadata),
        }
    }

    /// Returns the ending for a server that does not offer this.
    pub(crate) fn lacking(self) -> Ending {
        let sentence = match self {
            Self::Login(_) => {
                "The server does not say where it issues codes. If its documentation names the address, give it with \
                 --device-authorization-endpoint; otherwise it does not support login with a code."
            }
            Self::Renewal => {
                "The server does not renew tokens any more: it names no endpoint for them."
            }
            Self::Revocation => "The server does not revoke tokens.",
        };
        Ending::new(Exit::Refused, sentence)
    }
}

impl Server {
    /// Returns the client for this server. A missing endpoint is replaced by another one, but no command uses the replacement.
    pub(crate) fn flow(&self, context: &Context) -> Result<DeviceFlow, Ending> {
        let codes = self.endpoint("device_authorization_endpoint")?;
        let token = self.endpoint("token_endpoint")?;
        let revocation = self.endpoint("revocation_endpoint")?;
        let any = codes.or(token).or(revocation).unwrap_or_default();
        let endpoints = Endpoints::new(codes.unwrap_or(any), token.unwrap_or(any));
        let endpoints = endpoints.and_then(|endpoints| match revocation {
            Some(url) => endpoints.revocation(url),
            None => Ok(endpoints),
        });
        let endpoints =
            endpoints.map_err(|error| Ending::new(Exit::Untrusted, sentence(&error)))?;
        Ok(DeviceFlow::new(endpoints, &*context.client_id))
    }

    /// Returns the URL of an endpoint, if the server has it.
    pub(crate) fn endpoint(&self, name: &str) -> Result<Option<&str>, Ending> {
        self.0.endpoint(name).map_err(untrusted)
    }
}

/// Returns the ending for metadata of another issuer. It shows that issuer only if it is a valid URL, and so visible ASCII.
fn of_another_issuer(body: &[u8]) -> Ending {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let named = document.get("issuer").and_then(Value::as_str);
    let named =
        named.filter(|named| named.len() <= MAX_SHOWN && Metadata::well_known(named).is_ok());
    let named = named.map_or_else(String::new, |named| format!(", {named}"));
    let sentence = format!(
        "The server's metadata are not used, because they are of another issuer{named}. Check the address given with --issuer, and whether it must end with a slash."
    );
    Ending::new(Exit::Untrusted, sentence)
}

/// The longest issuer that is shown, in bytes.
const MAX_SHOWN: usize = 200;

fn untrusted(error: MetadataError) -> Ending {
    Ending::new(
        Exit::Untrusted,
        format!("The server's metadata are not used: {error}."),
    )
}
