//! What the host knows of a client ([RFC 6749, section 2]).
//!
//! [RFC 6749, section 2]: https://www.rfc-editor.org/rfc/rfc6749#section-2

use alloc::sync::Arc;

use crate::digest::SecretDigest;
use crate::scope::Scope;
use crate::wire::octets::are_vschars;

/// A registered client. Nothing is allowed to it that is not said.
///
/// Build it once per client and keep it: sessions share its id and its scope.
///
/// ```
/// use device_flow::digest::SecretDigest;
/// use device_flow::server::{Authentication, Registration};
///
/// let cli = Registration::new("client_cli", Authentication::Public)?
///     .allow_device_grant()
///     .allow_scope("openid profile email offline_access".parse()?)
///     .default_scope("openid".parse()?);
///
/// let backend = Registration::new(
///     "client_backend",
///     Authentication::secret(SecretDigest::of("from a secure generator")),
/// )?
/// .allow_device_grant();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Registration {
    client_id: Arc<str>,
    authentication: Authentication,
    device_grant: bool,
    disabled: bool,
    pub(super) allowed: Scope,
    pub(super) default: Option<Scope>,
}

impl Registration {
    /// The client of this id, which so far may do nothing.
    ///
    /// # Errors
    ///
    /// [`ClientIdError`] for an empty id, or one with other than visible ASCII and space ([RFC 6749, appendix A.1]).
    ///
    /// [RFC 6749, appendix A.1]: https://www.rfc-editor.org/rfc/rfc6749#appendix-A.1
    pub fn new(
        client_id: impl Into<Arc<str>>,
        authentication: Authentication,
    ) -> Result<Self, ClientIdError> {
        let client_id = client_id.into();
        if client_id.is_empty() || !are_vschars(client_id.as_bytes()) {
            return Err(ClientIdError);
        }
        Ok(Self {
            client_id,
            authentication,
            device_grant: false,
            disabled: false,
            allowed: Scope::empty(),
            default: None,
        })
    }

    /// Allows the device grant.
    #[must_use]
    pub const fn allow_device_grant(mut self) -> Self {
        self.device_grant = true;
        self
    }

    /// The scope tokens that it may ask for; replaces those that were given before.
    #[must_use]
    pub fn allow_scope(mut self, allowed: Scope) -> Self {
        self.allowed = allowed;
        self
    }

    /// What it asks for when it names no scope. [`Scope::empty`] allows asking for nothing.
    #[must_use]
    pub fn default_scope(mut self, default: Scope) -> Self {
        self.default = Some(default);
        self
    }

    /// Refuses the client from now on, wherever its sessions stand.
    #[must_use]
    pub const fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// The id.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// How it authenticates.
    pub const fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// Whether it has no credential, so that anybody may claim to be it: say so where the user decides
    /// ([RFC 8628, section 5.6](https://www.rfc-editor.org/rfc/rfc8628#section-5.6)).
    #[must_use]
    pub const fn is_public(&self) -> bool {
        matches!(self.authentication, Authentication::Public)
    }

    pub(super) const fn shared_id(&self) -> &Arc<str> {
        &self.client_id
    }

    pub(super) const fn is_disabled(&self) -> bool {
        self.disabled
    }

    pub(super) const fn may_use_device_grant(&self) -> bool {
        self.device_grant
    }
}

/// How a client authenticates, by the methods of [RFC 7591, section 2].
///
/// [RFC 7591, section 2]: https://www.rfc-editor.org/rfc/rfc7591#section-2
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a host maps its own registry to these"
)]
pub enum Authentication {
    /// `none`: it has no secret, its id is only claimed.
    Public,
    /// A generated secret of 128 bits or more, of which the digests are here: the core compares.
    Secret {
        /// One digest, or two while a secret is being replaced.
        digests: [Option<SecretDigest>; 2],
        /// Where the secret may be.
        placement: SecretPlacement,
    },
    /// A secret that the host compares, with argon2 for example.
    HostSecret(SecretPlacement),
    /// `private_key_jwt` or `client_secret_jwt`: the host verifies the assertion ([RFC 7523](https://www.rfc-editor.org/rfc/rfc7523)).
    Assertion,
    /// `tls_client_auth`: the host verified the certificate ([RFC 8705](https://www.rfc-editor.org/rfc/rfc8705)).
    MutualTls,
}

impl Authentication {
    /// One secret, anywhere.
    pub const fn secret(digest: SecretDigest) -> Self {
        Self::Secret {
            digests: [Some(digest), None],
            placement: SecretPlacement::Anywhere,
        }
    }
}

/// Where a client may present its secret.
///
/// > The authorization server MUST support the HTTP Basic authentication scheme for authenticating clients that were issued a
/// > client password. ([RFC 6749, section 2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1))
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "there are two places, and Basic is never refused"
)]
pub enum SecretPlacement {
    /// In the `Authorization` header or in the body.
    Anywhere,
    /// `client_secret_basic` alone.
    BasicOnly,
}

/// A text that is no client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a client id consists of at least one character, all of visible ascii or space")]
#[non_exhaustive]
pub struct ClientIdError;
