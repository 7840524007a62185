//! How a login of a [pair](super) ends. The client's outcome must agree with what the server has stored.

use device_flow::client::LoginError;
use device_flow::server::{Cause, Status};

use super::refresh::Refreshes;
use super::{ASKED, Outcome, Pair, Summary};
use crate::support::ACCESS_TOKEN;

impl Pair<'_> {
    /// Asserts that the login ends as the user chose, or that it expires. It may be rejected only if an answer was lost, a request came
    /// twice, a redemption was written but not answered, or the session was withdrawn or purged.
    pub(super) fn ends_in(&mut self, outcome: &Outcome) -> Summary {
        self.shows(outcome);
        self.note(|| format!("the end: {outcome:?}"));
        let status = self.server.status();
        let past_deadline = self.held >= self.deadline;
        // An answer that may have had the tokens did not arrive, or was a 5xx.
        let is_lost = self.lost || self.failed;
        let ending = match outcome {
            Ok(tokens) => {
                assert_eq!(self.told, Some(Cause::Granted));
                assert_eq!(status, Some(Status::Active));
                assert_eq!(self.server.successes, 1);
                assert_eq!(tokens.bearer(), Some(ACCESS_TOKEN));
                let withheld: &[&str] = match tokens.scope() {
                    Some(ASKED) => &[],
                    Some("openid") => &["profile", "offline_access"],
                    other => panic!("{other:?} was granted"),
                };
                assert_eq!(tokens.withheld(), withheld);
                // Without `offline_access` there is no refresh token.
                assert_eq!(tokens.refresh_token().is_some(), withheld.is_empty());
                "granted"
            }
            Err(LoginError::Denied(_)) => {
                assert_eq!(self.told, Some(Cause::Denied));
                assert_eq!(status, Some(Status::Denied));
                "denied"
            }
            Err(LoginError::Expired(refusal)) => {
                match refusal.code() {
                    Some("expired_token") => {
                        let expired = [Some(Cause::Expired), Some(Cause::ApprovalExpired)];
                        assert!(expired.contains(&self.told));
                    }
                    Some("invalid_grant") => assert!(past_deadline && !is_lost),
                    other => panic!("{other:?}"),
                }
                "expired by the server"
            }
            Err(LoginError::TimedOut(_)) => {
                assert!(past_deadline);
                // The client was not told of a decision. Otherwise the decision would be the outcome.
                let undecided = [
                    Cause::Pending,
                    Cause::Repeated,
                    Cause::TooFast,
                    Cause::StoreFailed,
                    Cause::OutcomeUnknown,
                ];
                assert!(self.told.is_none_or(|told| undecided.contains(&told)));
                "expired by the clock"
            }
            Err(LoginError::Rejected(refusal)) => {
                assert_eq!(refusal.code(), Some("invalid_grant"));
                assert_eq!(refusal.possibly_redeemed, is_lost);
                assert!(is_lost || !past_deadline);
                // An answer was lost, a request came twice, or a write was done but the client got a 5xx.
                let is_copied = self.lost || self.twice || self.unheard;
                match status {
                    Some(Status::Active) => assert!(is_copied),
                    Some(Status::Ended) => assert!(is_copied || self.server.withdrawn),
                    None => {}
                    other => panic!("rejected while {other:?}"),
                }
                "rejected"
            }
            other => panic!("{other:?}"),
        };
        // With one server clock and without a loss, the server never says `slow_down`. With two clocks, this holds as long as the tolerance
        // covers the difference between them and the speed of the client's clock.
        let interval = self.server.interval;
        let tolerance = (interval / 4).max(1000);
        let [behind, ahead] = self.skews;
        let covered = interval * 1000 / self.fastest - (ahead - behind) >= interval - tolerance;
        if covered && !self.lost && !self.twice && !self.set_back {
            assert!(!self.server.slowed_down, "slowed down without a loss");
        }
        Summary {
            messages: self.server.messages,
            ending,
            chosen: status.and_then(|status| match status {
                Status::Approved | Status::Active => Some("granted"),
                Status::Denied => Some("denied"),
                Status::Pending | Status::Claimed | Status::Ended => None,
            }),
            slowed_down: self.server.slowed_down,
            refreshes: Refreshes::default(),
            is_active: false,
        }
    }
}
