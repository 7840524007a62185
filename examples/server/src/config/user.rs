//! A user of the configuration.

use argon2::password_hash::phc::PasswordHash;
use device_flow::server::Subject;
use serde::Deserialize;

use super::{ConfigError, Hidden};

/// A user, as the configuration file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    pub sub: String,
    pub email: String,
    /// An argon2 hash in PHC form.
    pub password: Hidden,
    pub name: String,
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub org_id: Option<String>,
    /// Whether the account is locked. Nobody can sign in to it, and no device gets tokens for it.
    #[serde(default)]
    pub locked: bool,
}

/// A user with an account.
pub struct User {
    pub(crate) subject: Subject,
    pub(crate) entry: UserEntry,
}

impl User {
    pub(super) fn of(entry: &UserEntry) -> Result<Self, ConfigError> {
        let wrong = |what| ConfigError::User(entry.email.clone(), what);
        if PasswordHash::new(&entry.password.0).is_err() {
            return Err(wrong(
                "its password must be an argon2 hash in PHC form: $argon2id$…",
            ));
        }
        let subject = Subject::new(entry.sub.as_str())
            .map_err(|_| wrong("its sub must have 1 to 255 bytes and no control character"))?;
        Ok(Self {
            subject,
            entry: entry.clone(),
        })
    }

    /// Returns whether the two users cannot be told apart.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let email = &other.entry.email;
        self.subject == other.subject || self.entry.email.eq_ignore_ascii_case(email)
    }
}
