//! The session after a login: the tokens, and whose they are.
//!
//! Rules:
//! 1. A process that changes the tokens holds the lock, and reads them again once it has the lock.
//! 2. A token that arrives is stored or, if the server can do that, revoked. Only tokens of an earlier login are left to expire, and only
//!    if they are not known to be of another user.

use core::fmt::Write as _;
use core::ops::ControlFlow;
use core::time::Duration;

use device_flow::client::{
    DeviceFlow, DisplayText, FlowError, RequestError, Response, Revocation, Tokens, TransportError,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Context;
use crate::discovery::{Server, Wanted, discover};
use crate::ending::{Ending, Exit, sentence};
use crate::id_token::{self, Identity};
use crate::login::{self, since_epoch};
use crate::screen::{Report, Span};

const FILE: &str = "tokens.json";
const LOCK: &str = "tokens.lock";

/// A token that expires sooner than this counts as expired, because using it takes some time.
const MARGIN: Duration = Duration::from_secs(10);

/// The tokens as they are stored on disk.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    v: u8,
    issuer: String,
    client_id: String,
    access_token: String,
    refresh_token: Option<String>,
    scope: String,
    /// The scope tokens that were requested and not granted.
    withheld: Vec<String>,
    /// When the access token expires, in seconds since the Unix epoch.
    expires_at: Option<u64>,
    identity: Option<Identity>,
}

const VERSION: u8 = 1;

impl Session {
    pub(crate) fn new(
        context: &Context,
        tokens: &Tokens,
        scope: &str,
        identity: Option<Identity>,
    ) -> Result<Self, Ending> {
        let access_token = tokens.bearer().ok_or_else(|| {
            Ending::new(
                Exit::Untrusted,
                "The server's token is of a type that is not known here.",
            )
        })?;
        let expires_at = tokens
            .expires_in()
            .map(|span| since_epoch().saturating_add(span));
        Ok(Self {
            v: VERSION,
            issuer: context.issuer.clone(),
            client_id: context.client_id.clone(),
            access_token: access_token.to_owned(),
            refresh_token: tokens.refresh_token().map(str::to_owned),
            // "OPTIONAL, if identical to the scope requested by the client" (RFC 6749, section 5.1)
            scope: tokens.scope().unwrap_or(scope).to_owned(),
            withheld: tokens.withheld().to_vec(),
            expires_at: expires_at.map(|at| at.as_secs()),
            identity,
        })
    }

    /// Replaces the session on disk. Tokens that were there are revoked if they are known to be of another user and the server can do that.
    /// Other tokens are left to expire, because some servers revoke all tokens of a grant together, and the new tokens may belong to the
    /// same grant.
    pub(crate) fn keep(&self, context: &Context, server: &Server) -> Result<(), Ending> {
        let before = {
            let _lock = context.store.lock(LOCK)?;
            // A file that cannot be read is replaced, too.
            let before = Self::load(context).ok();
            context.store.write(FILE, self)?;
            before
        };
        if let Some(before) = before.filter(|before| before.is_of_another_user_than(self)) {
            let refresh_token = before.refresh_token.as_deref();
            revoke(
                &server.flow(context)?,
                context,
                refresh_token,
                &before.access_token,
            );
        }
        Ok(())
    }

    fn is_of_another_user_than(&self, other: &Self) -> bool {
        match (&self.identity, &other.identity) {
            (Some(own), Some(others)) => own.sub != others.sub,
            (Some(_) | None, _) => false,
        }
    }

    fn load(context: &Context) -> Result<Self, Ending> {
        let read = match context.store.read::<Self>(FILE) {
            Ok(Some(session)) if session.v != VERSION => Err(context.store.not_understood(FILE)),
            read => read,
        };
        let login = context.login_command();
        read.map_err(|mut ending| {
            let _ = write!(ending.sentence, " Run `{login}` to replace it.");
            ending
        })?
        .ok_or_else(|| nobody(context))
    }

    fn left(&self) -> Option<Duration> {
        let expires_at = Duration::from_secs(self.expires_at?);
        Some(expires_at.saturating_sub(since_epoch()))
    }

    fn has_expired(&self) -> bool {
        self.left().is_some_and(|left| left <= MARGIN)
    }

    /// Returns who is signed in, without the tokens.
    pub(crate) fn report(&self, event: &str) -> Report {
        let shown = |text: &String| DisplayText::new(text).to_string();
        let identity = self.identity.as_ref();
        let sub = identity.map(|identity| shown(&identity.sub));
        let name = identity
            .and_then(|identity| identity.name.as_ref())
            .map(shown);
        let email = identity
            .and_then(|identity| identity.email.as_ref())
            .map(shown);
        let scope = shown(&self.scope);
        let withheld: Vec<String> = self.withheld.iter().map(shown).collect();

        let who = match (&name, &email, &sub) {
            (Some(name), Some(email), _) => format!(" as {name} ({email})"),
            (Some(one), None, _) | (None, Some(one), _) | (None, None, Some(one)) => {
                format!(" as {one}")
            }
            (None, None, None) => String::new(),
        };
        let mut sentence = format!("Signed in to {}{who}.", self.issuer);
        if !withheld.is_empty() {
            let _ = write!(sentence, " Not granted: {}.", withheld.join(" "));
        }
        if event == "identity" {
            let expiry = match self.left() {
                _ if self.has_expired() => " The access token has expired.".to_owned(),
                Some(left) => format!(" The access token is good for {}.", Span(left)),
                None => String::new(),
            };
            sentence.push_str(&expiry);
        }
        let event = json!({
            "event": event,
            "issuer": self.issuer,
            "client_id": self.client_id,
            "sub": sub,
            "name": name,
            "email": email,
            "scope": scope,
            "withheld": withheld,
            "expires_at": self.expires_at,
            "has_refresh_token": self.refresh_token.is_some(),
        });
        Report { event, sentence }
    }

    /// Returns new tokens for these. The caller holds the lock.
    fn renewed(self, context: &Context) -> Result<Self, Ending> {
        let login = context.login_command();
        let Some(refresh_token) = &self.refresh_token else {
            let sentence = format!("There is no refresh token: run `{login}`.");
            return Err(Ending::new(Exit::SignedOut, sentence));
        };
        let server = discover(context, Wanted::Renewal)?;
        let flow = server.flow(context)?;
        let refresh = flow.refresh(refresh_token);
        let mut refresh = refresh.map_err(|error| Ending::new(Exit::Failed, sentence(&error)))?;
        // From here on the tokens on disk may be used up, and the new ones are not stored yet.
        context.must_finish(|| ());
        let send =
            |request| -> Result<Response<Vec<u8>>, TransportError> { context.http.send(request) };
        // If the answer was lost, the same request is sent again, because many servers accept the same token for a short time.
        let renewed = refresh.run_blocking(send, |span| {
            context
                .screen
                .note("The tokens could not be renewed yet: trying again.");
            std::thread::sleep(span);
            ControlFlow::Continue(())
        });
        let tokens = match renewed {
            Ok(tokens) => tokens,
            Err(RequestError::Ended(refusal)) => {
                // The refresh token stays invalid, but the access token may still be valid.
                let spent = Self {
                    refresh_token: None,
                    ..self
                };
                context.store.write(FILE, &spent)?;
                let login_again = if refusal.possibly_redeemed {
                    format!(
                        "The login is no longer valid, perhaps because an earlier answer of the server was lost: run `{login}`."
                    )
                } else {
                    format!("The login is no longer valid: run `{login}`.")
                };
                return Err(Ending::refused(Exit::SignedOut, login_again, &refusal));
            }
            Err(error) => {
                let exit = match &error {
                    RequestError::Unavailable { .. } | RequestError::Failed(_) => Exit::Unreachable,
                    RequestError::Ended(_) | RequestError::Rejected(_) => Exit::Refused,
                    RequestError::Redirected(_) | RequestError::Malformed(_) => Exit::Untrusted,
                };
                return Err(Ending::new(exit, sentence(&error)));
            }
        };
        let next = self.succeeded_by(context, &server, &tokens);
        let kept = next.and_then(|next| context.store.write(FILE, &next).map(|()| next));
        let next = kept.inspect_err(|_| {
            revoke(
                &flow,
                context,
                tokens.refresh_token(),
                tokens.access_token(),
            );
        })?;
        context.interrupt.check()?;
        Ok(next)
    }

    fn succeeded_by(
        self,
        context: &Context,
        server: &Server,
        tokens: &Tokens,
    ) -> Result<Self, Ending> {
        let identity = match tokens.id_token() {
            Some(token) => match id_token::verify(context, server, token) {
                Ok(identity) => Some(identity),
                // Without the keys the ID token cannot be checked, but the user is known from before.
                Err(ending) if ending.exit == Exit::Unreachable => self.identity.clone(),
                Err(ending) => return Err(ending),
            },
            None => self.identity.clone(),
        };
        // "its sub Claim Value MUST be the same as in the ID Token issued when the original authentication occurred"
        // (OpenID Connect Core 1.0, section 12.2)
        let same = match (&self.identity, &identity) {
            (Some(before), Some(now)) => before.sub == now.sub,
            (Some(_) | None, _) => true,
        };
        if !same {
            let sentence = "The server's answer is not accepted: the tokens are of another user.";
            return Err(Ending::new(Exit::Untrusted, sentence));
        }
        let mut next = Self::new(context, tokens, &self.scope, identity)?;
        next.withheld = self.withheld;
        Ok(next)
    }
}

fn nobody(context: &Context) -> Ending {
    let login = context.login_command();
    let sentence = format!("Nobody is signed in: run `{login}`.");
    Ending::new(Exit::SignedOut, sentence)
}

pub(crate) fn whoami(context: &Context) -> Result<Report, Ending> {
    Ok(Session::load(context)?.report("identity"))
}

pub(crate) fn token(context: &Context) -> Result<Report, Ending> {
    let mut session = Session::load(context)?;
    if session.has_expired() {
        let _lock = context.store.lock(LOCK)?;
        session = Session::load(context)?;
        // Another process may have renewed it meanwhile.
        if session.has_expired() {
            session = session.renewed(context)?;
        }
    }
    let event = json!({
        "event": "token",
        "access_token": session.access_token,
        "expires_at": session.expires_at,
    });
    let sentence = session.access_token;
    Ok(Report { event, sentence })
}

pub(crate) fn refresh(context: &Context) -> Result<Report, Ending> {
    let before = Session::load(context)?;
    let _lock = context.store.lock(LOCK)?;
    let session = Session::load(context)?;
    // Another process may have renewed them while this one waited for the lock. Then they are not renewed again.
    let session = if session == before {
        session.renewed(context)?
    } else {
        session
    };
    let event = json!({ "event": "refreshed", "expires_at": session.expires_at });
    let sentence = match session.left() {
        Some(left) => format!("Renewed: the access token is good for {}.", Span(left)),
        None => "Renewed.".to_owned(),
    };
    Ok(Report { event, sentence })
}

pub(crate) fn logout(context: &Context) -> Result<Report, Ending> {
    login::forget(context)?;
    if !context.store.holds(FILE)? {
        return Err(nobody(context));
    }
    let _lock = context.store.lock(LOCK)?;
    let session = Session::load(context);
    let server = session
        .is_ok()
        .then(|| discover(context, Wanted::Revocation));
    // Once the file is gone, no other process can revoke the tokens.
    context.must_finish(|| ());
    context.store.remove(FILE)?;
    let session = match session {
        Err(ending) if ending.exit == Exit::Failed => {
            let sentence = "Signed out here: the tokens are forgotten. They could not be read, so they stay good until they expire.";
            return Ok(Report {
                event: json!({ "event": "signed_out", "revoked": false, "expires_at": null }),
                sentence: sentence.to_owned(),
            });
        }
        session => session?,
    };
    let left = server.and_then(Result::ok).map_or(Left::Both, |server| {
        let refresh_token = session.refresh_token.as_deref();
        server.flow(context).map_or(Left::Both, |flow| {
            revoke(&flow, context, refresh_token, &session.access_token)
        })
    });
    let has_ended = session.left().is_some_and(|left| left.is_zero());
    let left = if left == Left::AccessToken && has_ended {
        Left::Nothing
    } else {
        left
    };
    let expires_at = session.expires_at.filter(|_| left != Left::Nothing);
    let sentence = match (left, session.left()) {
        (Left::Nothing, _) => "Signed out: the tokens are no longer valid, and are forgotten.".to_owned(),
        (Left::AccessToken, Some(left)) => format!(
            "Signed out: the login is revoked and forgotten. The access token, forgotten too, stays good for {}.",
            Span(left)
        ),
        (Left::AccessToken, None) => {
            "Signed out: the login is revoked and forgotten. The access token is forgotten, and stays good until it expires."
                .to_owned()
        }
        (Left::Both, _) => {
            "Signed out here: the tokens are forgotten. The server did not confirm that they are revoked, so they may stay good until they expire."
                .to_owned()
        }
    };
    let revoked = left != Left::Both;
    let event = json!({ "event": "signed_out", "revoked": revoked, "expires_at": expires_at });
    Ok(Report { event, sentence })
}

/// Which tokens are still valid after a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// Many servers cannot revoke an access token, because those who check it do not ask the server.
    AccessToken,
    Both,
}

/// Revokes the tokens if the server can ([RFC 7009]), and returns which are left. It revokes the refresh token first, because that could
/// get new tokens.
///
/// [RFC 7009]: https://www.rfc-editor.org/rfc/rfc7009
pub(crate) fn revoke(
    flow: &DeviceFlow,
    context: &Context,
    refresh_token: Option<&str>,
    access_token: &str,
) -> Left {
    let revoked = |revocation: Result<Revocation, FlowError>| {
        revocation.is_ok_and(|revocation| {
            let answer = context.http.send(revocation.request().clone());
            revocation.answer(answer).is_ok()
        })
    };
    let refresh_token = refresh_token.map(|token| revoked(flow.revoke_refresh_token(token)));
    match (
        refresh_token,
        revoked(flow.revoke_access_token(access_token)),
    ) {
        (Some(true) | None, true) => Left::Nothing,
        (Some(true), false) => Left::AccessToken,
        (Some(false), _) | (None, false) => Left::Both,
    }
}
