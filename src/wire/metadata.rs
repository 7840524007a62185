//! The metadata of an authorization server ([RFC 8414](https://www.rfc-editor.org/rfc/rfc8414), `OpenID` Connect Discovery 1.0).
//!
//! Rules:
//! 1. A document is used only if its issuer is the expected one, code point for code point.
//! 2. A document may name an http URL only on loopback, and only if its issuer is on loopback, too. Otherwise the document could send codes
//!    to a program on this machine.
//! 3. A document with a repeated member is refused, because two readers could read two different values.
//! 4. Both halves use one type: the server makes it, and the client reads it.

use alloc::format;
use alloc::string::{String, ToString as _};

use serde_json::{Map, Value};

use super::json::read_object;
pub use super::uri::{MAX_URL, UrlError};
use super::uri::{bare, endpoint_of};

/// The largest document that is read, in bytes. Real documents have a few kilobytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// The grant type of the device authorization grant ([RFC 8628, section 3.4](https://www.rfc-editor.org/rfc/rfc8628#section-3.4)).
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

const ISSUER: &str = "issuer";
pub(crate) const DEVICE_AUTHORIZATION: &str = "device_authorization_endpoint";
pub(crate) const TOKEN: &str = "token_endpoint";
const GRANT_TYPES: &str = "grant_types_supported";

/// The metadata of an authorization server. A server publishes it, and a client reads it.
///
/// A client fetches the document from the URL of [`well_known`](Self::well_known) or [`openid`](Self::openid), and reads the body:
///
/// ```
/// use device_flow::wire::metadata::Metadata;
///
/// let issuer = "https://login.example.com";
/// assert_eq!(Metadata::openid(issuer)?, "https://login.example.com/.well-known/openid-configuration");
///
/// let body = br#"{"issuer":"https://login.example.com",
///     "device_authorization_endpoint":"https://login.example.com/oauth2/device_authorization",
///     "token_endpoint":"https://login.example.com/oauth2/token"}"#;
/// let metadata = Metadata::read(body, issuer)?;
/// assert_eq!(metadata.token_endpoint(), Some("https://login.example.com/oauth2/token"));
/// # Ok::<(), device_flow::wire::metadata::MetadataError>(())
/// ```
///
/// A server makes its own:
///
/// ```
/// use device_flow::wire::metadata::Metadata;
///
/// let body = Metadata::for_server(
///     "https://login.example.com",
///     "https://login.example.com/oauth2/device_authorization",
///     "https://login.example.com/oauth2/token",
/// )?
/// .grant_type("refresh_token")
/// .member("jwks_uri", "https://login.example.com/oauth2/jwks")?
/// .to_json();
/// # Ok::<(), device_flow::wire::metadata::MetadataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(Map<String, Value>);

impl Metadata {
    /// Reads a document that was fetched for `issuer`.
    ///
    /// # Errors
    ///
    /// [`MetadataError`]: the document cannot be read, has another issuer, or an endpoint has a URL that cannot be used.
    ///
    /// # Security
    ///
    /// "The `issuer` value returned MUST be identical to the authorization server's issuer identifier value into which the well-known URI
    /// string was inserted to create the URL used to retrieve the metadata."
    /// ([RFC 8414, section 3.3](https://www.rfc-editor.org/rfc/rfc8414#section-3.3))
    pub fn read(body: &[u8], issuer: &str) -> Result<Self, MetadataError> {
        if body.len() > MAX_DOCUMENT {
            return Err(MetadataError::TooLarge);
        }
        let text = core::str::from_utf8(body).map_err(|_| MetadataError::Unreadable)?;
        let mut metadata = Self(Map::new());
        let mut is_repeated = false;
        let read = read_object(text, |name: String, value: Value| {
            is_repeated |= metadata.0.insert(name, value).is_some();
        });
        if read.is_err() || is_repeated {
            return Err(MetadataError::Unreadable);
        }
        // "If these values are not identical, the data contained in the response MUST NOT be used."
        if metadata.text(ISSUER) != Some(issuer) {
            return Err(MetadataError::Issuer);
        }
        for name in [DEVICE_AUTHORIZATION, TOKEN] {
            metadata.endpoint(name)?;
        }
        Ok(metadata)
    }

    /// Returns the metadata of a server with its endpoints at these URLs. It lists the device grant, and the ways of client authentication
    /// that this crate supports. It lists no response type, because the grant has no authorization endpoint.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Url`] if the URL of the issuer or of an endpoint cannot be used.
    pub fn for_server(
        issuer: &str,
        device_authorization_endpoint: &str,
        token_endpoint: &str,
    ) -> Result<Self, MetadataError> {
        bare(issuer)?;
        endpoint_of(issuer, device_authorization_endpoint)?;
        endpoint_of(issuer, token_endpoint)?;
        let members = [
            (ISSUER, Value::from(issuer)),
            (DEVICE_AUTHORIZATION, device_authorization_endpoint.into()),
            (TOKEN, token_endpoint.into()),
            (GRANT_TYPES, [DEVICE_CODE_GRANT].as_slice().into()),
            // RFC 8414, section 2, requires this member even if it is empty.
            ("response_types_supported", Value::Array([].into())),
            (
                "token_endpoint_auth_methods_supported",
                ["none", "client_secret_basic", "client_secret_post"]
                    .as_slice()
                    .into(),
            ),
        ];
        let named = members.map(|(name, value)| (name.to_string(), value));
        Ok(Self(named.into_iter().collect()))
    }

    /// Adds a grant type.
    #[must_use]
    pub fn grant_type(mut self, name: &str) -> Self {
        if let Some(Value::Array(names)) = self.0.get_mut(GRANT_TYPES)
            && !names.iter().any(|given| given == name)
        {
            names.push(name.into());
        }
        self
    }

    /// Adds a member, or replaces its value.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Reserved`] if it is the issuer, one of the two endpoints or the grant types.
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Result<Self, MetadataError> {
        if [ISSUER, DEVICE_AUTHORIZATION, TOKEN, GRANT_TYPES].contains(&name) {
            return Err(MetadataError::Reserved);
        }
        self.0.insert(name.to_string(), value.into());
        Ok(self)
    }

    /// Adds a device authorization endpoint from your configuration, if the document has none.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Url`] if the URL cannot be used.
    pub fn or_device_authorization_endpoint(mut self, url: &str) -> Result<Self, MetadataError> {
        endpoint_of(self.issuer(), url)?;
        if self.device_authorization_endpoint().is_none() {
            self.0.insert(DEVICE_AUTHORIZATION.to_string(), url.into());
        }
        Ok(self)
    }

    /// Returns the issuer.
    pub fn issuer(&self) -> &str {
        self.text(ISSUER).unwrap_or_default()
    }

    /// Returns the URL of the device authorization endpoint. It is `None` if the server does not support the grant
    /// ([RFC 8628, section 4](https://www.rfc-editor.org/rfc/rfc8628#section-4)).
    pub fn device_authorization_endpoint(&self) -> Option<&str> {
        self.text(DEVICE_AUTHORIZATION)
    }

    /// Returns the URL of the token endpoint, if the document has one.
    pub fn token_endpoint(&self) -> Option<&str> {
        self.text(TOKEN)
    }

    /// Returns the URL of another endpoint, for example `jwks_uri` or `revocation_endpoint`, if the document has it. The URL is checked
    /// like those of the two endpoints above.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Unreadable`] if the value is not a string, [`MetadataError::Url`] if the URL cannot be used.
    pub fn endpoint(&self, name: &str) -> Result<Option<&str>, MetadataError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let url = value.as_str().ok_or(MetadataError::Unreadable)?;
                endpoint_of(self.issuer(), url)?;
                Ok(Some(url))
            }
        }
    }

    /// Returns all members.
    pub const fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the document, to serve as `application/json`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Returns the URL of an issuer's document.
    ///
    /// "If the issuer identifier value contains a path component, any terminating "/" MUST be removed before inserting
    /// "/.well-known/" and the well-known URI suffix between the host component and the path component."
    /// ([RFC 8414, section 3.1](https://www.rfc-editor.org/rfc/rfc8414#section-3.1))
    ///
    /// # Errors
    ///
    /// [`MetadataError::Url`] if the issuer is neither https nor http on loopback, or has a query or a fragment.
    pub fn well_known(issuer: &str) -> Result<String, MetadataError> {
        let path = bare(issuer)?.path;
        let origin = issuer.strip_suffix(path).unwrap_or(issuer);
        let path = path.strip_suffix('/').unwrap_or(path);
        Ok(format!(
            "{origin}/.well-known/oauth-authorization-server{path}"
        ))
    }

    /// Returns the URL of an issuer's document by `OpenID` Connect Discovery 1.0, section 4, which appends a path to the issuer.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Url`] as for [`Self::well_known`].
    pub fn openid(issuer: &str) -> Result<String, MetadataError> {
        bare(issuer)?;
        let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
        Ok(format!("{issuer}/.well-known/openid-configuration"))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }
}

/// Why a document cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The document has more than [`MAX_DOCUMENT`] bytes.
    #[error("the metadata document is larger than 1 MiB; check its URL")]
    TooLarge,
    /// The document is not a JSON object, has a repeated member, or has an endpoint that is not a string.
    #[error(
        "the metadata document is not valid; check its URL, and whether this network wants its own sign-in first"
    )]
    Unreadable,
    /// The issuer is missing, or is not the expected one ([RFC 8414, section 3.3](https://www.rfc-editor.org/rfc/rfc8414#section-3.3)).
    #[error(
        "the metadata document has another issuer than the configured one; check the URL, or, if you trust that issuer, configure it exactly as the document has it"
    )]
    Issuer,
    /// The URL of the issuer or of an endpoint cannot be used.
    #[error("the URL of an issuer or of an endpoint cannot be used: {0}")]
    Url(UrlError),
    /// The member has its own argument or method.
    #[error(
        "this member of the metadata cannot be added by name; set it with its own argument or method"
    )]
    Reserved,
}

impl From<UrlError> for MetadataError {
    fn from(why: UrlError) -> Self {
        Self::Url(why)
    }
}
