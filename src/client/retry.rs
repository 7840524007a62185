//! How often, and how soon, a request that may be repeated is sent again.

use core::time::Duration;

/// The pauses before the second request and the next ones. Together with the requests they stay within the 30 s for which this
/// crate's server half, like others, accepts a refresh token that was used.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The longest `Retry-After` that is waited for here. A longer one is for the caller to decide about.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The repetitions of one request.
pub(crate) struct Retries(core::array::IntoIter<Duration, 3>);

impl Retries {
    pub(crate) fn new() -> Self {
        Self(PAUSES.into_iter())
    }

    /// Returns how long to wait before the request is sent again; `None` if it is not.
    pub(crate) fn pause(
        &mut self,
        may_be_retried: bool,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let pause = self.0.next().filter(|_| may_be_retried)?;
        let pause = pause.max(retry_after.unwrap_or_default());
        (pause <= MAX_PAUSE).then_some(pause)
    }
}
