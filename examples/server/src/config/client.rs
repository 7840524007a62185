//! A client of the configuration.

use device_flow::digest::SecretDigest;
use device_flow::scope::Scope;
use device_flow::server::{Client, ClientAuthMethod};
use serde::Deserialize;

use super::ConfigError;

/// A client, as the configuration file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientEntry {
    pub id: String,
    /// The name that users know.
    pub name: String,
    /// The SHA-256 of its secret in hexadecimal. There are two while one secret replaces the other, and none for a public client.
    #[serde(default)]
    pub secret_sha256: Vec<String>,
    #[serde(default)]
    pub device_grant: bool,
    /// The scope that it may request.
    pub scope: Scope,
    /// The scope that it gets if it requests none.
    pub default_scope: Option<Scope>,
    /// The part of its scope that a user cannot untick.
    #[serde(default = "Scope::empty")]
    pub required_scope: Scope,
}

/// Returns the client as a type of the crate.
pub(super) fn client(entry: &ClientEntry) -> Result<Client, ConfigError> {
    let wrong = |what| ConfigError::Client(entry.id.clone(), what);
    let digests = entry.secret_sha256.iter().map(|text| {
        unhex(text).ok_or_else(|| wrong("secret_sha256 must be 64 hexadecimal digits"))
    });
    let digests = digests.collect::<Result<Vec<_>, _>>()?;
    let method = match *digests.as_slice() {
        [] => ClientAuthMethod::None,
        [one] => ClientAuthMethod::secret(one),
        [one, two] => ClientAuthMethod::Secret([Some(one), Some(two)]),
        _ => return Err(wrong("at most two secrets may be active")),
    };
    let client = Client::new(entry.id.as_str(), method).map_err(|_| {
        wrong("its id must not be empty, and must have only visible ASCII and spaces")
    })?;
    let mut client = client
        .named(entry.name.as_str())
        .allow_scope(entry.scope.clone());
    if entry.device_grant {
        client = client.allow_device_grant();
    }
    if !entry.required_scope.is_within(&entry.scope) {
        return Err(wrong("its required_scope must be within its scope"));
    }
    if let Some(default) = &entry.default_scope {
        if !default.is_within(&entry.scope) {
            return Err(wrong("its default_scope must be within its scope"));
        }
        client = client.default_scope(default.clone());
    }
    Ok(client)
}

pub(super) fn unhex(text: &str) -> Option<SecretDigest> {
    let mut octets = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (octet, digits) in octets.iter_mut().zip(text.as_bytes().chunks(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(SecretDigest::from_bytes(octets))
}
