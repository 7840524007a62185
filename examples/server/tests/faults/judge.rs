//! Compares, at the end, what devices and users were told with what is stored, and finds out which refresh tokens are valid.

use std::collections::BTreeMap;

use device_flow::client::{LoginError, Tokens};
use device_flow::server::{Status, Store as _};
use example_server::store::Store;
use fastrand::Rng;

use super::device::{Login, Refreshes};
use super::user::Wish;
use super::world::World;

/// Compares what was told with what is stored. Returns a summary if nothing is wrong.
pub(crate) async fn judge(world: &World, store: &Store, logins: &[Login]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for login in logins {
        let session = &login.session;
        let successes = world.successes.lock().unwrap().get(session).copied();
        let successes = successes.unwrap_or_default();
        let stored = store.load(session).await.unwrap();
        // Nothing is purged yet.
        let status = stored.map(|stored| stored.session.status());
        let ending = ending(&login.outcome);
        let is_replayed = world.replayed.lock().unwrap().contains(session);
        let refreshes = login.refreshes.as_ref();
        let may_have_ended = is_replayed || refreshes.is_some_and(|it| it.is_doubled);
        let is_right = status.is_some_and(|status| {
            let is_redeemed = matches!(status, Status::Active | Status::Ended);
            decision_stands(login, status)
                && (successes == 0 || (successes == 1 && is_redeemed))
                && ending_is_right(ending, successes, status, may_have_ended)
        });
        // The tokens of a device can be used, unless its login has ended.
        let is_active = status == Some(Status::Active);
        let branches = match &login.refreshes {
            Some(refreshes) => branches(world, refreshes, is_active).await,
            None => Ok(()),
        };
        if !is_right || branches.is_err() {
            wrong.push(format!(
                "{:?}, acknowledged {}, stored {status:?}, {successes} successes, the device {ending}, replayed {is_replayed}, \
                {branches:?}, {:?}",
                login.wish, login.is_acknowledged, login.refreshes
            ));
        }
        if status == Some(Status::Ended) {
            *counts.entry("ended".to_owned()).or_default() += 1;
        }
        let wish = login.wish;
        *counts.entry(format!("{wish:?} {ending}")).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{:?}: {wrong:#?}", world.plan);
    // How many succeed depends on the machine. If none does, nothing was tested.
    let successes: usize = world.successes.lock().unwrap().values().sum();
    assert!(successes > 0, "none succeeds: {counts:?}");
    let refreshes = || logins.iter().filter_map(|login| login.refreshes.as_ref());
    let succeeded: usize = refreshes().map(|it| it.successes).sum();
    let repeated: usize = refreshes().map(|it| it.repeats).sum();
    assert!(succeeded > 0, "none refreshes: {counts:?}");
    assert!(repeated > 0, "no answer to a refresh is lost: {counts:?}");
    format!(
        "{} logins, {successes} successes, {succeeded} refreshes, {repeated} repeated: {counts:?}",
        logins.len()
    )
}

/// Tries the tokens that the device had, one after the other. At most one may be valid, because a login has one branch. The device's own
/// token is valid if the login is active, unless a request that was sent twice has made it void.
async fn branches(world: &World, refreshes: &Refreshes, is_active: bool) -> Result<(), String> {
    let mut tokens = vec![&refreshes.token];
    tokens.extend(&refreshes.others);
    if refreshes.is_doubled {
        Rng::with_seed(world.plan.seed).shuffle(&mut tokens);
    }
    let mut good = 0;
    for token in tokens {
        let answer = world.refreshed(token).await;
        good += usize::from(answer.is_ok());
        let is_own = *token == refreshes.token;
        if is_own && !refreshes.is_doubled && answer.is_ok() != is_active {
            return Err(format!("the device's own token: {answer:?}"));
        }
    }
    if good > 1 {
        return Err(format!("{good} branches"));
    }
    Ok(())
}

/// Returns whether the session is as its user wished, or as it was before if the page did not confirm the decision.
fn decision_stands(login: &Login, status: Status) -> bool {
    match status {
        Status::Pending => !login.is_acknowledged,
        Status::Claimed => !login.is_acknowledged && login.wish != Wish::Ignore,
        // If a code was sent again after it was redeemed, the login has ended.
        Status::Approved | Status::Active | Status::Ended => login.wish == Wish::Approve,
        Status::Denied => login.wish == Wish::Deny,
    }
}

/// Returns whether a login may have ended like this.
fn ending_is_right(ending: &str, successes: usize, status: Status, may_have_ended: bool) -> bool {
    match ending {
        "granted" => successes == 1 && (status == Status::Active || may_have_ended),
        "denied" => status == Status::Denied,
        "expired" => true, // any device can be late
        // The success was lost on its way to the device, or was not sent: a write of unknown outcome gives a 503, which the device treats
        // as a lost answer. In both cases the session is redeemed. If the code was sent again too late, the login has also ended.
        "possibly redeemed" | "rejected" => matches!(status, Status::Active | Status::Ended),
        _ => false,
    }
}

fn ending(outcome: &Result<Tokens, LoginError>) -> &'static str {
    match outcome {
        Ok(_) => "granted",
        Err(LoginError::Denied(_)) => "denied",
        Err(LoginError::Expired(_) | LoginError::TimedOut(_)) => "expired",
        Err(LoginError::Rejected(refusal)) if refusal.possibly_redeemed => "possibly redeemed",
        Err(LoginError::Rejected(_)) => "rejected",
        Err(LoginError::Failed(_)) => "failed",
        Err(LoginError::Redirected(_)) => "redirected",
        Err(LoginError::Malformed(_)) => "malformed",
        Err(LoginError::Cancelled(_)) => "cancelled",
        Err(LoginError::Start(_) | LoginError::Over) => "none",
    }
}
