//! Issuing: a pair of codes, a session, a response (table D).
//!
//! Rules:
//! 1. The codes are drawn from entropy. The host gives fresh entropy, by value, for each draw.
//! 2. The response is made only after the store has inserted the session.
//! 3. If a user code is taken, the codes are drawn again. If a device code is taken, the generator is broken.

use alloc::string::String;
use alloc::sync::Arc;

use super::client::Client;
use super::host::Inserted;
use super::machine::{Input, Prepared, Progress, Quota, Step, Task};
use super::policy::Policy;
use super::reply::Cause;
use super::response::Response;
use super::session::{Session, State, Status};
use super::subject::RequestSource;
use super::timestamp::Timestamp;
use crate::code::{DeviceCode, Entropy, UserCode};
use crate::digest::{Digest, SessionKey};
use crate::scope::{MAX_BYTES, Scope};

/// Room in a response for two copies of a user code with dashes.
const USER_CODES: usize = 48;

/// How often codes are drawn again if the user code is taken (D7).
const REDRAWS: u8 = 3;

/// Decides which scope an authenticated client asks for. A request that is refused for its scope takes nothing from the quota.
pub(super) fn ask(input: &Input<'_>, progress: &mut Progress, client: &Client) -> Step {
    match scope(input, client) {
        Ok(scope) => {
            progress.requested = Some(scope);
            progress.client_id = Some(client.id.clone());
            progress.is_public = client.is_public();
            Step::Take(Quota::Issuing)
        }
        Err(cause) => progress.end(cause),
    }
}

/// Returns the scope that the user will be asked to grant (D3 to D5).
///
/// > If the client omits the scope parameter when requesting authorization, the authorization server MUST either process
/// > the request using a pre-defined default value or fail the request indicating an invalid scope.
/// > ([RFC 6749, section 3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3))
fn scope(input: &Input<'_>, client: &Client) -> Result<Scope, Cause> {
    let Some(requested) = input.form.scope() else {
        let default = client.default.as_ref().ok_or(Cause::ScopeMissing)?;
        if default.is_within(&client.allowed) {
            return Ok(default.clone());
        }
        let allowed = client.allowed.allow(default.as_str());
        return allowed.ok().flatten().ok_or(Cause::ScopeMissing);
    };
    // Most clients ask for all that they may ask for.
    if requested.is(client.allowed.as_str()) {
        return Ok(client.allowed.clone());
    }
    let mut room = [0; MAX_BYTES];
    let requested = requested.text_in(&mut room).ok_or(Cause::ScopeMalformed)?;
    let allowed = client.allowed.allow(requested);
    allowed
        .map_err(|_| Cause::ScopeMalformed)?
        .ok_or(Cause::ScopeNotAllowed)
}

/// Draws the codes and makes the session.
pub(super) fn draw(input: &Input<'_>, progress: &mut Progress, entropy: Entropy) -> Step {
    let (Some(scope), Some(client_id)) = (progress.requested.take(), progress.client_id.take())
    else {
        return progress.unavailable();
    };
    let policy = input.policy;
    let (device_code, user_code) = entropy.codes(&policy.options.user_code);
    let shown = if let Task::DeviceAuthorization(shown) = input.task {
        shown
    } else {
        None
    };
    let expires_at = Timestamp::from(input.now).after(policy.options.lifetime);
    let lifetime = policy.options.lifetime.as_millis();
    let session = Session {
        key: SessionKey(Digest::of(device_code.octets())),
        state: State::Pending,
        expires_at,
        client_id,
        version: 1,
        lifetime: u32::try_from(lifetime).unwrap_or(u32::MAX),
        purge_at: expires_at.after(policy.options.retention),
        user_key: input.keys.user_key(&user_code),
        scope,
        source: shown.map(|shown| Arc::new(RequestSource::new(shown))),
    };
    let mut prepared = Prepared::new(Status::Pending, session);
    prepared.codes = Some((device_code, user_code));
    progress.prepared = Some(prepared);
    Step::Insert
}

/// Decides by the result of the insert (D6 to D8).
pub(super) fn inserted(
    input: &Input<'_>,
    progress: &mut Progress,
    prepared: Option<&Prepared>,
    inserted: Inserted,
) -> Step {
    match inserted {
        Inserted::New => {
            if let Some((device_code, user_code)) = prepared.and_then(|own| own.codes.as_ref()) {
                let body = body(input.policy, device_code, user_code);
                progress.made = Some(Response::made(body));
            }
            progress.end(Cause::Issued)
        }
        Inserted::UserCodeTaken if progress.redraws >= REDRAWS => {
            progress.end(Cause::UserCodesTaken)
        }
        Inserted::UserCodeTaken => {
            let session = prepared.map(|own| &own.session);
            progress.requested = session.map(|session| session.scope.clone());
            progress.client_id = session.map(|session| session.client_id.clone());
            progress.redraws = progress.redraws.saturating_add(1);
            Step::Draw
        }
        Inserted::DeviceCodeTaken => progress.end(Cause::EntropyBroken),
    }
}

fn body(policy: &Policy, device_code: &DeviceCode, user_code: &UserCode) -> String {
    let end = policy.after_complete.as_deref().unwrap_or_default();
    let parts = [
        r#"{"device_code":""#,
        device_code.as_str(),
        r#"","user_code":""#,
    ];
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let length = length
        .saturating_add(policy.after_code.len())
        .saturating_add(end.len())
        .saturating_add(USER_CODES);
    let mut body = String::with_capacity(length);
    body.extend(parts);
    // Writing to a `String` never fails.
    let _ = user_code.write_to(&mut body);
    body.push_str(&policy.after_code);
    if policy.after_complete.is_some() {
        let _ = user_code.write_to(&mut body);
        body.push_str(end);
    }
    body
}
