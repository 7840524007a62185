//! The registration of a client ([RFC 6749, section 2](https://www.rfc-editor.org/rfc/rfc6749#section-2)).

use alloc::sync::Arc;

use super::subject::InvalidText;
use crate::digest::SecretDigest;
use crate::scope::Scope;
use crate::wire::octets::are_vschars;

/// A registered client. It may do only what is allowed here.
///
/// Build it once per client and keep it, because sessions share the memory of its id and its scope.
///
/// ```
/// use device_flow::digest::SecretDigest;
/// use device_flow::server::{Client, ClientAuthMethod};
///
/// let cli = Client::new("client_cli", ClientAuthMethod::None)?
///     .named("Example CLI")
///     .allow_device_grant()
///     .allow_scope("openid profile email offline_access".parse()?)
///     .default_scope("openid".parse()?);
///
/// let secret = SecretDigest::of("from a secure generator");
/// let backend = Client::new("client_backend", ClientAuthMethod::secret(secret))?.allow_device_grant();
/// assert!(cli.is_public() && !backend.is_public());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Client {
    pub(super) id: Arc<str>,
    pub(super) method: ClientAuthMethod,
    pub(super) name: Option<Arc<str>>,
    pub(super) device_grant: bool,
    pub(super) disabled: bool,
    pub(super) allowed: Scope,
    pub(super) default: Option<Scope>,
}

impl Client {
    /// Makes a client with this id. It may do nothing yet.
    ///
    /// # Errors
    ///
    /// [`InvalidText::ClientId`] if the id is empty, or has a character other than visible ASCII and space
    /// ([RFC 6749, appendix A.1](https://www.rfc-editor.org/rfc/rfc6749#appendix-A.1)).
    pub fn new(id: impl Into<Arc<str>>, method: ClientAuthMethod) -> Result<Self, InvalidText> {
        let id = id.into();
        if id.is_empty() || !are_vschars(id.as_bytes()) {
            return Err(InvalidText::ClientId);
        }
        Ok(Self {
            id,
            method,
            name: None,
            device_grant: false,
            disabled: false,
            allowed: Scope::empty(),
            default: None,
        })
    }

    /// Sets the name that the page shows to users: `client_name` of
    /// [RFC 7591, section 2](https://www.rfc-editor.org/rfc/rfc7591#section-2).
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Allows the device grant, and the refresh of the logins that come of it.
    pub const fn allow_device_grant(mut self) -> Self {
        self.device_grant = true;
        self
    }

    /// Sets the scope tokens that the client may ask for, in place of those that were set before.
    pub fn allow_scope(mut self, allowed: Scope) -> Self {
        self.allowed = allowed;
        self
    }

    /// Sets the scope of a request that names none. Without a default, such a request is refused with `invalid_scope`. With
    /// [`Scope::empty`], it asks for nothing.
    pub fn default_scope(mut self, default: Scope) -> Self {
        self.default = Some(default);
        self
    }

    /// Disables the client: every request of it is refused, whatever the state of its sessions.
    pub const fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// Returns the id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns how the client authenticates.
    pub const fn auth_method(&self) -> &ClientAuthMethod {
        &self.method
    }

    /// Returns the name for users, if one was set.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns whether the client has no credential, so that anybody can claim to be it. Tell the user so on the page
    /// ([RFC 8628, section 5.6](https://www.rfc-editor.org/rfc/rfc8628#section-5.6)).
    pub const fn is_public(&self) -> bool {
        matches!(self.method, ClientAuthMethod::None)
    }

    /// Whether it may use the device grant now ([B7](crate::tables#b7), [B9](crate::tables#b9)).
    pub(super) const fn may_use_device_grant(&self) -> bool {
        self.device_grant && !self.disabled
    }
}

/// How a client authenticates: `token_endpoint_auth_method` of [RFC 7591, section 2](https://www.rfc-editor.org/rfc/rfc7591#section-2).
///
/// A client with a secret may always use HTTP Basic: "The authorization server MUST support the HTTP Basic authentication scheme for
/// authenticating clients that were issued a client password."
/// ([RFC 6749, section 2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1))
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host says one of these")]
pub enum ClientAuthMethod {
    /// `none`: the client has no secret, so anybody can claim its id.
    None,
    /// `client_secret_basic` or `client_secret_post`: a generated secret of 128 bits or more, in the `Authorization` header
    /// or in the body. The core compares it with these digests: one, or two while a secret is being replaced.
    Secret([Option<SecretDigest>; 2]),
    /// `client_secret_basic`: as [`Secret`](Self::Secret), but in the `Authorization` header only.
    SecretBasic([Option<SecretDigest>; 2]),
    /// A secret that the host compares, with argon2 for example. It may be in the header or in the body. If it is right, the host answers
    /// [`Found::Verified`](super::Found::Verified). For an unknown client, hash something as well, so that the answer takes as long.
    HostSecret,
    /// As [`HostSecret`](Self::HostSecret), but in the `Authorization` header only.
    HostSecretBasic,
    /// `private_key_jwt` or `client_secret_jwt`: the host verifies the assertion
    /// ([RFC 7523](https://www.rfc-editor.org/rfc/rfc7523)).
    Assertion,
    /// `tls_client_auth` or `self_signed_tls_client_auth`: the host verified the certificate
    /// ([RFC 8705](https://www.rfc-editor.org/rfc/rfc8705)).
    MutualTls,
}

impl ClientAuthMethod {
    /// Returns the method of a client with one secret, in the header or in the body.
    pub const fn secret(digest: SecretDigest) -> Self {
        Self::Secret([Some(digest), None])
    }
}
