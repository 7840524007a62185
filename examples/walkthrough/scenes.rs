//! What happens in each scene, and what is expected of each answer.

use core::time::Duration;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::client::{
    DeviceFlow, Endpoints, LoginError, Refresh, RequestError, Tokens, Verdict,
};
use device_flow::digest::{SecretDigest, SessionKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, HostValue, Policy, PolicyOptions, Status, Subject,
};
use serde_json::Value;

use super::host::{DemoHost, Dice, ISSUER, Membership, User};
use super::service::Service;
use super::stage::{BEGINNING, Expected, Result, Stage, name};
use super::transcript::{Party, Transcript};

/// A command-line tool. It has no secret, because everyone who has the tool could read it.
const CLI: &str = "client_01K5CLI7QZ8W3N4T6V9XBD2M";

/// A television's backend, with a secret.
const BACKEND: &str = "client_01K5TVBACKEND2H4R6Y8P0S";

/// A generated secret. Every secret must be one if the server keeps only a plain digest of it.
const SECRET: &str = "sk_7Fjfp0ZBr1KtDRbnfVdmIw";

/// The scope that the tool requests.
const SCOPE: &str = "openid profile email offline_access";

/// The scope that it requests in scenes about refresh tokens.
const OFFLINE: &str = "profile offline_access";

/// Plays all scenes.
pub(crate) fn play(transcript: &mut Transcript) -> Result<()> {
    login(transcript)?;
    denied(transcript)?;
    expired(transcript)?;
    guessed(transcript)?;
    refreshed(transcript)?;
    lost(transcript)?;
    stolen(transcript)?;
    signed_out(transcript)?;
    transcript.end();
    Ok(())
}

fn login(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a login with WorkOS Connect, for less than was asked",
        "A command-line tool, a public client, asks for a user's name, their email address and a refresh token. Alice grants \
        all of it but the address.",
    );
    let alice = alice()?;
    let mut stage = stage(options(), 1, transcript)?;
    let (mut device, prompt) = stage.start(&cli()?, &issued(300))?;

    stage.poll(&mut device, &pending())?;
    stage.goes_on(&mut device)?;

    stage.until(seconds(7));
    stage.note(
        "A second process of the tool uses the same code, and polls only 2 s after the last poll. The interval is 5 s, and the \
        server accepts a poll after 3.75 s at the earliest. So it answers slow_down, and the interval of this code is 10 s from \
        now on.",
    );
    let verdict = stage.poll_again(Party::Device, &slow_down(10))?;
    let slowed = Verdict::SlowDown(Some(seconds(10)));
    stage.expect("the verdict", &slowed, &verdict)?;

    stage.poll(&mut device, &slow_down(10))?;
    stage.goes_on(&mut device)?;
    stage.note(
        "The first process did wait for 5 s, but the interval belongs to the code, not to the process. It learns the new interval \
        now, and comes back in 10 s. The interval has not grown again: it grows once for each accepted poll.",
    );

    stage.until(seconds(12));
    stage.note(
        "Alice types the code in lower case, with a space. Case, spaces and dashes do not matter.",
    );
    let entered = stage.enter(&alice, &prompt.user_code.to_lowercase().replace('-', " "))?;
    let review = stage.accepted(entered)?;
    let shown = review.user_code().display().to_string();
    stage.expect("the code on the page", &prompt.user_code, &shown)?;

    stage.until(seconds(16));
    stage.note("Alice does not allow the email address. She may grant less than was asked for, never more.");
    let granted: Scope = "openid profile offline_access".parse()?;
    let login = *review.session_key();
    let approved = stage.approve(&alice, &login, &granted, &membership()?)?;
    stage.accepted(approved)?;

    stage.poll(&mut device, &self::granted(granted.as_str()))?;
    let outcome = stage.ends(&mut device)?;
    let Ok(tokens) = &outcome else {
        return Err(stage.mismatch("tokens", name(&outcome)));
    };
    stage.expect("the withheld scope", "email", &tokens.withheld().join(" "))?;
    stage.expect("a refresh token", &true, &tokens.refresh_token().is_some())?;
    let claims = claims(tokens.id_token().unwrap_or_default())?;
    let claim = |name| claims.get(name).and_then(Value::as_str);
    stage.expect("the name", &Some("Alice"), &claim("name"))?;
    stage.expect("the address", &None, &claim("email"))?;
    stage.says(
        Party::Device,
        format!("has its tokens. In the ID token: {}", listed(&claims)),
    );
    stage.note(
        "There is no email address. The response names the scope, as RFC 6749, section 5.1, requires if it is not the one that \
        was asked for. So the device knows that it did not get: email.",
    );

    stage.until(seconds(35));
    stage.note("Somebody found the device code in a log, and tries it. It was redeemed 15 s ago, and is good only once.");
    stage.expect_login(&login, Status::Active)?;
    stage.poll_again(
        Party::Thief,
        &Expected::error(Cause::Replay, "invalid_grant"),
    )?;
    stage.expect_login(&login, Status::Ended)?;
    stage.says(
        Party::Server,
        "has ended the login: its refresh token is void. Nobody can tell which of the two is the thief.",
    );
    stage.note(
        "The thief gets the same answer as for a code that never existed; only the log knows the cause. Within 2 s after the \
        redemption it would have been a duplicate, a request that the network delivered twice, and the login would go on.",
    );
    Ok(())
}

fn denied(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a confidential client, and a user who says no",
        "The backend of a television has a secret. It authenticates with it at both endpoints, in the header.",
    );
    let alice = alice()?;
    let mut stage = stage(options(), 2, transcript)?;
    let flow = DeviceFlow::new(endpoints()?, BACKEND)
        .scope("openid")
        .secret_basic(SECRET);
    let (mut device, prompt) = stage.start(&flow, &issued(300))?;

    stage.until(seconds(3));
    let entered = stage.enter(&alice, &prompt.user_code)?;
    let review = stage.accepted(entered)?;
    stage.note("Alice has no television.");
    stage.after(seconds(1));
    let denied = stage.deny(&alice, review.session_key())?;
    stage.accepted(denied)?;

    stage.poll(
        &mut device,
        &Expected::error(Cause::Denied, "access_denied"),
    )?;
    let outcome = stage.ends(&mut device)?;
    let Err(LoginError::Denied(_)) = outcome else {
        return Err(stage.mismatch("a denial", name(&outcome)));
    };
    stage.says(Party::Device, "shows: the request was denied.");
    stage.note(
        "The device stops polling, as RFC 8628, section 3.5, asks of it. The user may start again.",
    );
    Ok(())
}

fn expired(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a code that nobody approves in time",
        "In this scene codes live for 12 s only. Alice enters the code, and then the doorbell rings.",
    );
    let alice = alice()?;
    let options = PolicyOptions {
        lifetime: seconds(12),
        ..options()
    };
    let mut stage = stage(options, 3, transcript)?;
    let (mut device, prompt) = stage.start(&cli()?, &issued(12))?;

    stage.until(seconds(4));
    let entered = stage.enter(&alice, &prompt.user_code)?;
    let review = stage.accepted(entered)?;
    stage.poll(&mut device, &pending())?;
    stage.goes_on(&mut device)?;
    stage.poll(&mut device, &pending())?;
    stage.goes_on(&mut device)?;

    stage.note(
        "By the clock of the device, the code has expired. The device asks one last time all the same: clocks differ, and the \
        server decides when a code has expired.",
    );
    stage.poll(
        &mut device,
        &Expected::error(Cause::Expired, "expired_token"),
    )?;
    let outcome = stage.ends(&mut device)?;
    let Err(LoginError::Expired(_)) = outcome else {
        return Err(stage.mismatch("expiry, by the server", name(&outcome)));
    };
    stage.says(Party::Device, "shows: the code has expired; start again.");

    stage.until(seconds(20));
    let approved = stage.approve(&alice, review.session_key(), review.scope(), &membership()?)?;
    stage.refused(&approved, "Expired")?;
    Ok(())
}

fn guessed(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a page on which somebody guesses",
        "Mallory has an account, but no device. Each user may enter five codes at once, then one a minute; there are \
        25,600,000,000 codes. The device has no network in this scene, so that it does not poll.",
    );
    let (alice, mallory) = (alice()?, mallory()?);
    let mut stage = stage(options(), 4, transcript)?;
    let (mut device, prompt) = stage.start(&cli()?, &issued(300))?;

    let guesses = ["BBBB-BBBB", "BBBB-BBBC", "BBBB-BBBD", "BBBB-BBBF"];
    for (typed, second) in guesses.into_iter().zip(10..) {
        stage.until(seconds(second));
        let entered = stage.enter(&mallory, typed)?;
        stage.refused(&entered, "UnknownCode")?;
    }
    stage.note("Text that cannot be a code counts as a guess, too.");
    stage.until(seconds(14));
    let entered = stage.enter(&mallory, "hello")?;
    stage.refused(&entered, "MalformedCode")?;

    stage.until(seconds(15));
    let entered = stage.enter(&mallory, "BBBB-BBBG")?;
    stage.refused(&entered, "RateLimited, for 55 s")?;
    stage.note(
        "The five guesses are used up. The server counts a guess before it looks the code up, so that the answer is the same \
        for every code. Next, Mallory enters the right one.",
    );
    stage.until(seconds(18));
    let entered = stage.enter(&mallory, &prompt.user_code)?;
    stage.refused(&entered, "RateLimited, for 52 s")?;

    stage.until(seconds(20));
    stage.note(
        "The limit counts by user: Mallory's guesses do not lock Alice out, whose device it is.",
    );
    let entered = stage.enter(&alice, &prompt.user_code)?;
    stage.accepted(entered)?;

    stage.until(seconds(24));
    device.cancel();
    let outcome = stage.ends(&mut device)?;
    let Err(LoginError::Cancelled(None)) = outcome else {
        return Err(stage.mismatch("nothing but the end", name(&outcome)));
    };
    stage.says(
        Party::Device,
        "is switched off. It was not waiting for an answer, so no tokens are lost.",
    );
    Ok(())
}

fn refreshed(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a refresh",
        "Alice has signed in with the tool as in scene 1. That is not shown again, nor in the next scenes. The tool has asked for \
        less, so that there is no ID token to print. Its access token is good for 5 minutes. After that the tool sends its \
        refresh token, and gets new tokens. Alice does not notice.",
    );
    let mut stage = stage(options(), 5, transcript)?;
    let (first, login) = signed_in(&mut stage)?;

    stage.until(seconds(310));
    let mut refresh = refresh_with(&first)?;
    let second = stage.refresh(Party::Device, &mut refresh, &refreshed_tokens())?;
    let second = tokens(&stage, second)?;
    let is_same = second.refresh_token() == first.refresh_token();
    stage.expect("the same refresh token again", &false, &is_same)?;
    stage.expect_login(&login, Status::Active)?;
    stage.note(
        "A refresh token is good for one refresh, and each answer brings the next one. The tool must store that before it \
        does anything else. The server keeps digests only: no token can be read from its store.",
    );

    stage.until(seconds(620));
    let third = stage.refresh(
        Party::Device,
        &mut refresh_with(&second)?,
        &refreshed_tokens(),
    )?;
    tokens(&stage, third)?;
    Ok(())
}

fn lost(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a refresh whose answer is lost",
        "The tool sends its refresh token, and the network loses the answer. Now the server has replaced the refresh token, and \
        the tool has the old one only.",
    );
    let mut stage = stage(options(), 6, transcript)?;
    let (first, login) = signed_in(&mut stage)?;

    stage.until(seconds(310));
    let mut refresh = refresh_with(&first)?;
    stage.refresh_in_vain(Party::Device, &mut refresh, &refreshed_tokens())?;

    stage.until(seconds(320));
    stage.says(
        Party::Device,
        "has waited for 10 s, and sends the same request again.",
    );
    let second = stage.refresh(Party::Device, &mut refresh, &refreshed_tokens())?;
    let second = tokens(&stage, second)?;
    stage.note(
        "For 30 s the server accepts a refresh token that it has replaced, because an answer can be lost. The new answer has \
        a new refresh token. The one in the lost answer is void now.",
    );

    stage.until(seconds(630));
    let third = stage.refresh(
        Party::Device,
        &mut refresh_with(&second)?,
        &refreshed_tokens(),
    )?;
    tokens(&stage, third)?;
    stage.expect_login(&login, Status::Active)?;
    stage.says(
        Party::Device,
        "is still signed in. Alice has not noticed anything.",
    );
    Ok(())
}

fn stolen(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a stolen refresh token",
        "A thief has copied the refresh token from Alice's disk. A refresh token is good for one refresh, so the second of the \
        two who use it reveals the theft.",
    );
    let mut stage = stage(options(), 7, transcript)?;
    let (owners, login) = signed_in(&mut stage)?;

    stage.until(seconds(120));
    let thiefs = stage.refresh(
        Party::Thief,
        &mut refresh_with(&owners)?,
        &refreshed_tokens(),
    )?;
    let thiefs = tokens(&stage, thiefs)?;
    stage.note("The tool is a public client: the server cannot tell the thief from the tool yet.");

    stage.until(seconds(310));
    let reuse = Expected::error(Cause::Reuse, "invalid_grant");
    let refused = stage.refresh(Party::Device, &mut refresh_with(&owners)?, &reuse)?;
    is_over(&stage, refused)?;
    stage.expect_login(&login, Status::Ended)?;
    stage.says(
        Party::Server,
        "has ended the login: a refresh token that it replaced 190 s ago was used again, so two parties have it.",
    );
    stage.says(Party::Device, "shows: you are signed out; sign in again.");

    stage.until(seconds(400));
    let ended = Expected::error(Cause::Ended, "invalid_grant");
    let refused = stage.refresh(Party::Thief, &mut refresh_with(&thiefs)?, &ended)?;
    is_over(&stage, refused)?;
    stage.note(
        "The thief's new refresh token is void, too. The thief's access token is good until it expires, for 20 s more: whoever \
        accepts access tokens as JWTs does not ask the server about them. So make them short-lived.",
    );
    Ok(())
}

fn signed_out(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a sign-out",
        "Alice signs out with the tool. It gives its refresh token back (RFC 7009), and forgets its tokens.",
    );
    let mut stage = stage(options(), 8, transcript)?;
    let (tokens, login) = signed_in(&mut stage)?;

    stage.until(seconds(60));
    let revoked = Expected::new(200, Cause::Revoked);
    let revocation = cli()?.revoke_refresh_token(refresh_token(&tokens)?)?;
    stage.revoke(Party::Device, &revocation, &revoked)?;
    stage.expect_login(&login, Status::Ended)?;
    stage.says(Party::Device, "shows: you are signed out.");

    stage.until(seconds(70));
    stage.note("A copy of the token that somebody made before is of no use any more.");
    let ended = Expected::error(Cause::Ended, "invalid_grant");
    let refused = stage.refresh(Party::Thief, &mut refresh_with(&tokens)?, &ended)?;
    is_over(&stage, refused)?;

    stage.until(seconds(80));
    let nothing = Expected::new(200, Cause::NothingToRevoke);
    let revocation = cli()?.revoke_refresh_token("a-guess")?;
    stage.revoke(Party::Thief, &revocation, &nothing)?;
    stage.note(
        "The answer to a revocation is the same for every token, good or bad, so that nobody can test tokens here. Only the \
        log knows the difference.",
    );
    Ok(())
}

/// Plays a login with the tool as in scene 1, without printing it. Returns its tokens and the key of its session.
fn signed_in(stage: &mut Stage<'_>) -> Result<(Tokens, SessionKey)> {
    let alice = alice()?;
    let (outcome, login) = stage.hidden(|stage| {
        let (mut device, prompt) = stage.start(&cli()?.scope(OFFLINE), &issued(300))?;
        let entered = stage.enter(&alice, &prompt.user_code)?;
        let review = stage.accepted(entered)?;
        let login = *review.session_key();
        let approved = stage.approve(&alice, &login, review.scope(), &membership()?)?;
        stage.accepted(approved)?;
        stage.poll(&mut device, &granted(OFFLINE))?;
        Ok((stage.ends(&mut device)?, login))
    })?;
    let Ok(tokens) = outcome else {
        return Err(stage.mismatch("tokens", name(&outcome)));
    };
    stage.says(Party::Device, "has its tokens.");
    Ok((tokens, login))
}

/// The result of a refresh.
type Refreshed = core::result::Result<Tokens, RequestError>;

fn tokens(stage: &Stage<'_>, refreshed: Refreshed) -> Result<Tokens> {
    refreshed.map_err(|error| stage.mismatch("tokens", error))
}

/// Checks that the device learns that its login is over.
fn is_over(stage: &Stage<'_>, refreshed: Refreshed) -> Result<()> {
    match refreshed {
        Err(RequestError::Ended(_)) => Ok(()),
        other => Err(stage.mismatch("the end of the login", format_args!("{other:?}"))),
    }
}

/// Returns a refresh with the refresh token of these tokens.
fn refresh_with(tokens: &Tokens) -> Result<Refresh> {
    Ok(cli()?.refresh(refresh_token(tokens)?)?)
}

fn refresh_token(tokens: &Tokens) -> Result<&str> {
    Ok(tokens.refresh_token().ok_or("there is no refresh token")?)
}

/// Returns the stage of a scene, whose server draws codes of its own.
fn stage(options: PolicyOptions, seed: u64, transcript: &mut Transcript) -> Result<Stage<'_>> {
    let scope: Scope = SCOPE.parse()?;
    let tool = Client::new(CLI, ClientAuthMethod::None)?
        .named("Acme CLI")
        .allow_device_grant()
        .allow_scope(scope.clone());
    let secret = ClientAuthMethod::secret(SecretDigest::of(SECRET));
    let television = Client::new(BACKEND, secret)?
        .named("Acme TV")
        .allow_device_grant()
        .allow_scope(scope);
    let host = DemoHost {
        store: Mutex::new(Memory::new()),
        clients: vec![Arc::new(tool), Arc::new(television)],
        users: vec![alice()?, mallory()?],
        dice: Dice::new(seed),
        now: BEGINNING,
    };
    let policy = Policy::new(&format!("{ISSUER}/device"), options)?;
    let service = Service::new(policy, host)?;
    Ok(Stage::new(service, transcript))
}

/// Returns the options of `WorkOS`: 300 s, an interval of 5 s, and a link with the code in it. The link is off by default, because it makes
/// phishing easy. With it the page must make the user compare the code.
fn options() -> PolicyOptions {
    PolicyOptions {
        verification_uri_complete: true,
        ..PolicyOptions::default()
    }
}

/// Returns the claims of an ID token. **Verify its signature before you believe them.**
fn claims(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(payload);
    let decoded = decoded.map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&decoded)?)
}

/// Returns the claims as text for people.
fn listed(claims: &Value) -> String {
    let claims = claims.as_object().into_iter().flatten();
    let claims = claims.map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name} {text}"),
        None => format!("{name} {value}"),
    });
    claims.collect::<Vec<_>>().join(", ")
}

fn endpoints() -> Result<Endpoints> {
    Ok(Endpoints::new(
        format!("{ISSUER}/oauth2/device_authorization"),
        format!("{ISSUER}/oauth2/token"),
    )?
    .revocation(format!("{ISSUER}/oauth2/revoke"))?)
}

fn cli() -> Result<DeviceFlow> {
    Ok(DeviceFlow::new(endpoints()?, CLI).scope(SCOPE))
}

fn alice() -> Result<User> {
    Ok(User {
        subject: Subject::new("user_01K5ALICE0F3J7M9Q2S5V8X")?,
        name: "Alice",
        email: "alice@example.com",
    })
}

fn mallory() -> Result<User> {
    Ok(User {
        subject: Subject::new("user_01K5MALLORY4G6K8N1R3T7W")?,
        name: "Mallory",
        email: "mallory@example.com",
    })
}

/// Returns what the host gets back when it mints the tokens.
fn membership() -> Result<HostValue> {
    let membership = Membership {
        org_id: "org_01K5ACME2B4D6F8H0J3L5N".to_owned(),
        sid: "app_consent_01K5C7E9G1J4M6P8R".to_owned(),
    };
    Ok(HostValue::new(serde_json::to_vec(&membership)?)?)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// What is expected.

fn issued(lifetime: u64) -> Expected {
    Expected::new(200, Cause::Issued)
        .member("interval", 5)
        .member("expires_in", lifetime)
}

fn granted(scope: &str) -> Expected {
    with_tokens(Cause::Granted, scope)
}

fn refreshed_tokens() -> Expected {
    with_tokens(Cause::Refreshed, OFFLINE)
}

fn with_tokens(cause: Cause, scope: &str) -> Expected {
    Expected::new(200, cause)
        .member("token_type", "Bearer")
        .member("expires_in", 300)
        .member("scope", scope)
}

fn pending() -> Expected {
    Expected::error(Cause::Pending, "authorization_pending")
}

fn slow_down(interval: u64) -> Expected {
    Expected::error(Cause::TooFast, "slow_down")
        .member("interval", interval)
        .header("retry-after", &interval.to_string())
}
