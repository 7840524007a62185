//! Passwords, compared by argon2: off the threads that serve requests, and not more at once than memory is for.
//!
//! Rule: an unknown account costs what a wrong password costs, for somebody's hash is looked at. Who has an account here is
//! nobody's business.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use tokio::sync::Semaphore;

/// How long a check waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest password that is looked at, in bytes.
const MAX_PASSWORD: usize = 1024;

/// Checks passwords.
pub(crate) struct Passwords {
    permits: Arc<Semaphore>,
}

/// Too many are being checked.
#[derive(Debug)]
pub(crate) struct Busy;

impl Passwords {
    /// Checks `at_once` of them at most.
    pub(crate) fn new(at_once: u32) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(usize::try_from(at_once).unwrap_or(1))),
        }
    }

    /// Whether `password` is the one of `hash`; never where there is none.
    pub(crate) async fn check(&self, password: String, hash: Option<String>) -> Result<bool, Busy> {
        let Some(hash) = hash else {
            return Ok(false);
        };
        let permit = tokio::time::timeout(PATIENCE, self.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| Busy)?.map_err(|_| Busy)?;
        let checking = tokio::task::spawn_blocking(move || {
            // Goes with the work, which nothing can cut short, not with the request, which may be gone before.
            let _permit = permit;
            verify(&password, &hash)
        });
        Ok(checking.await.unwrap_or(false))
    }
}

/// Whether `password` is the one of `hash`.
pub(crate) fn verify(password: &str, hash: &str) -> bool {
    password.len() <= MAX_PASSWORD
        && Argon2::default()
            .verify_password(password.as_bytes(), hash)
            .is_ok()
}
