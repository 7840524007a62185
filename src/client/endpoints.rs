//! The endpoints to which the requests go.

use alloc::string::String;

use crate::wire::metadata::{DEVICE_AUTHORIZATION, Metadata, MetadataError, TOKEN};
use crate::wire::uri::{self, UrlError};

/// The endpoints of an authorization server that a device talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub(crate) device_authorization: String,
    pub(crate) token: String,
    pub(crate) revocation: Option<String>,
}

impl Endpoints {
    /// Returns the endpoints with these URLs. Each must be https, or http on loopback.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Url`] if a URL cannot be used.
    pub fn new(
        device_authorization: impl Into<String>,
        token: impl Into<String>,
    ) -> Result<Self, EndpointError> {
        Ok(Self {
            device_authorization: checked(DEVICE_AUTHORIZATION, device_authorization)?,
            token: checked(TOKEN, token)?,
            revocation: None,
        })
    }

    /// Adds the revocation endpoint ([RFC 7009](https://www.rfc-editor.org/rfc/rfc7009)).
    ///
    /// # Errors
    ///
    /// [`EndpointError::Url`] if the URL cannot be used.
    pub fn revocation(mut self, url: impl Into<String>) -> Result<Self, EndpointError> {
        self.revocation = Some(checked(REVOCATION, url)?);
        Ok(self)
    }

    /// Returns the endpoints that a server publishes, with the revocation endpoint if there is one. If the document has no device
    /// authorization endpoint but you know it, add it first by [`Metadata::or_device_authorization_endpoint`].
    ///
    /// # Errors
    ///
    /// [`EndpointError::Missing`] if the document has no device authorization endpoint or no token endpoint, [`EndpointError::Url`] if the
    /// revocation endpoint cannot be used.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, EndpointError> {
        let named = |url: Option<_>, name| url.ok_or(EndpointError::Missing(name));
        let endpoints = Self::new(
            named(
                metadata.device_authorization_endpoint(),
                DEVICE_AUTHORIZATION,
            )?,
            named(metadata.token_endpoint(), TOKEN)?,
        )?;
        match metadata.endpoint(REVOCATION) {
            Ok(Some(url)) => endpoints.revocation(url),
            Err(MetadataError::Url(why)) => Err(EndpointError::Url {
                endpoint: REVOCATION,
                why,
            }),
            // A value that is not a string counts as absent.
            Ok(None) | Err(_) => Ok(endpoints),
        }
    }
}

const REVOCATION: &str = "revocation_endpoint";

fn checked(endpoint: &'static str, url: impl Into<String>) -> Result<String, EndpointError> {
    let url = url.into();
    match uri::endpoint(&url) {
        Ok(_) => Ok(url),
        Err(why) => Err(EndpointError::Url { endpoint, why }),
    }
}

/// Why endpoints cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// A URL cannot be used.
    #[error("the {endpoint} cannot be used: {why}")]
    #[non_exhaustive]
    Url {
        /// The endpoint's name in the metadata.
        endpoint: &'static str,
        /// What is wrong with the URL.
        why: UrlError,
    },
    /// The server's metadata lacks this endpoint.
    #[error(
        "the server's metadata has no {0}; if the server's documentation names its URL, configure that URL, otherwise the \
         server does not support the device grant"
    )]
    Missing(&'static str),
}
