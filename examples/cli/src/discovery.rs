//! What an authorization server offers ([RFC 8414], `OpenID` Connect Discovery 1.0).
//!
//! [RFC 8414]: https://www.rfc-editor.org/rfc/rfc8414

use device_flow::client::Endpoints;
use device_flow::wire::metadata::{Metadata, MetadataError};

use crate::Context;
use crate::ending::{Ending, Exit};

/// A server as it describes itself.
pub(crate) struct Server {
    pub(crate) metadata: Metadata,
    pub(crate) endpoints: Endpoints,
}

/// Reads the server's own description: where RFC 8414 puts it, or else where `OpenID` Connect does.
pub(crate) fn discover(context: &Context) -> Result<Server, Ending> {
    let issuer = &context.issuer;
    let places = [Metadata::well_known(issuer), Metadata::openid(issuer)];
    let mut found = false;
    for place in places {
        let place = place.map_err(untrusted)?;
        let answer = context.http.get(&place).map_err(Ending::no_answer)?;
        match answer.status().as_u16() {
            200 => {}
            300..=399 => {
                return Err(Ending::new(
                    Exit::Untrusted,
                    "The server redirects its metadata elsewhere, which is not followed: name the issuer itself.",
                ));
            }
            408 | 429 | 500..=599 => {
                return Err(Ending::new(
                    Exit::Unreachable,
                    "The server could not answer: try again later.",
                ));
            }
            _ => continue,
        }
        found = true;
        let metadata = Metadata::read(answer.body(), issuer).map_err(untrusted)?;
        if let Ok(endpoints) = Endpoints::from_metadata(&metadata) {
            return Ok(Server {
                metadata,
                endpoints,
            });
        }
    }
    Err(Ending::new(
        Exit::Refused,
        if found {
            "The server does not support login with a code."
        } else {
            "There is no authorization server at this address."
        },
    ))
}

impl Server {
    /// Another endpoint, if the server has it.
    pub(crate) fn endpoint(&self, name: &str) -> Result<Option<&str>, Ending> {
        self.metadata.endpoint(name).map_err(untrusted)
    }
}

fn untrusted(error: MetadataError) -> Ending {
    let why = match error {
        MetadataError::Issuer => "they are of another issuer (mind a slash at the end)",
        MetadataError::TooLarge => "they are too large",
        MetadataError::Url(_) => "they name an address that must not be used",
        MetadataError::Unreadable | MetadataError::Reserved | _ => "they cannot be read",
    };
    Ending::new(
        Exit::Untrusted,
        format!("The server's metadata are not used: {why}."),
    )
}
