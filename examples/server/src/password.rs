//! Checking passwords by argon2. The checks run apart from the threads that serve requests, and their number is limited, because each needs
//! memory.
//!
//! Rule: a check for an unknown account takes as long as a check of a wrong password, because it uses another user's hash. So nobody learns
//! who has an account here.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use tokio::sync::Semaphore;

/// How long a check waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest password that is checked, in bytes.
const MAX_PASSWORD: usize = 1024;

/// Checks passwords.
pub(crate) struct Passwords {
    permits: Arc<Semaphore>,
}

/// Too many passwords are being checked.
#[derive(Debug)]
pub(crate) struct Busy;

impl Passwords {
    /// Returns a checker that checks at most `at_once` passwords at once.
    pub(crate) fn new(at_once: u32) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(usize::try_from(at_once).unwrap_or(1))),
        }
    }

    /// Returns whether `password` matches `hash`. Without a hash it returns `false`.
    pub(crate) async fn check(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        let Some(hash) = hash else {
            return Ok(false);
        };
        let permit = tokio::time::timeout(PATIENCE, self.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let checking = tokio::task::spawn_blocking(move || {
            // The permit is held until the check ends. The check cannot be cut short, but the request may end before it.
            let _permit = permit;
            verify(&password, &hash)
        });
        Ok(checking.await.unwrap_or(false))
    }
}

/// Returns whether `password` matches `hash`.
pub(crate) fn verify(password: &str, hash: &str) -> bool {
    password.len() <= MAX_PASSWORD
        && Argon2::default()
            .verify_password(password.as_bytes(), hash)
            .is_ok()
}
