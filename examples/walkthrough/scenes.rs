//! The play.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::client::{DeviceFlow, Endpoints, Expiry, Outcome, Verdict};
use device_flow::digest::SecretDigest;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Cause, HostValue, Policy, PolicyBuilder, Registration, Subject,
};

use serde_json::Value;

use super::host::{Consent, Dice, Host, ISSUER, User};
use super::stage::{Expected, Result, Stage, name};
use super::transcript::{Party, Transcript};

/// A command-line tool: whoever has it can read its code, so it has no secret.
const CLI: &str = "client_01K5CLI7QZ8W3N4T6V9XBD2M";

/// A television's backend, with a secret.
const BACKEND: &str = "client_01K5TVBACKEND2H4R6Y8P0S";

/// A generated one, as every secret should be of which the server keeps a plain digest.
const SECRET: &str = "sk_7Fjfp0ZBr1KtDRbnfVdmIw";

/// What the tool asks for.
const SCOPE: &str = "openid profile email offline_access";

/// Plays all of it.
pub(crate) fn play(transcript: &mut Transcript) -> Result<()> {
    login(transcript)?;
    denied(transcript)?;
    expired(transcript)?;
    guessed(transcript)?;
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
    let mut stage = stage(policy(), 1, transcript)?;
    let (waiting, prompt) = stage.start(&cli()?, &issued(300))?;

    let waiting = stage.poll(waiting, &pending())?;
    let waiting = stage.goes_on(waiting)?;

    stage.until(seconds(7));
    stage.note(
        "A second process of the tool has the same code and no patience: it polls 2 s after the last poll. Told to wait 5 s, \
        it may come as early as 3.75 s. So it is slowed down, and the interval of this code is 10 s from now on.",
    );
    let verdict = stage.poll_again(Party::Device, &slow_down(10))?;
    let slowed = Verdict::SlowDown(Some(seconds(10)));
    stage.expect("the verdict", &slowed, &verdict)?;

    let waiting = stage.poll(waiting, &slow_down(10))?;
    let waiting = stage.goes_on(waiting)?;
    stage.note(
        "The first process kept to its 5 s, but the pace belongs to the code: it learns the wider interval now and comes back \
        in 10 s. The interval does not grow again, for it grows once per accepted poll.",
    );

    stage.until(seconds(12));
    stage.note("Typed as people do. Case, spaces and dashes do not matter.");
    let entered = stage.enter(&alice, &prompt.user_code.to_lowercase().replace('-', " "));
    let review = stage.accepted(entered)?;
    let shown = review.user_code().display().to_string();
    stage.expect("the code on the page", &prompt.user_code, &shown)?;

    stage.until(seconds(16));
    stage.note("Alice unticks the address. She may grant less than was asked for, never more.");
    let granted: Scope = "openid profile offline_access".parse()?;
    let approved = stage.approve(&alice, review.session_key(), &granted, &consent()?);
    stage.accepted(approved)?;

    let success = Expected::new(200, Cause::Granted)
        .member("token_type", "Bearer")
        .member("expires_in", 300)
        .member("scope", granted.as_str());
    let step = stage.poll(waiting, &success)?;
    let outcome = stage.ends(step)?;
    let Outcome::Granted(tokens) = &outcome else {
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
        "No address. The response names the scope, which RFC 6749, section 5.1, requires where it is not the one asked for; so \
        the device knows what it was not given: email.",
    );

    stage.until(seconds(35));
    stage.note("Somebody found the device code in a log and tries it. It was redeemed 15 s ago: a code is good once.");
    let left = stage.host.refresh_tokens();
    stage.expect("refresh tokens", &1, &left)?;
    stage.poll_again(
        Party::Thief,
        &Expected::error(Cause::Replay, "invalid_grant"),
    )?;
    let left = stage.host.refresh_tokens();
    stage.expect("refresh tokens", &0, &left)?;
    stage.says(
        Party::Server,
        "revokes the tokens of that login: nobody can tell who of the two was the thief.",
    );
    stage.note(
        "The peer learns no more than for a code that never was. The cause is in the log alone: within 10 s it would have been \
        a duplicate, a request that the network sent twice, and nothing would have been revoked.",
    );
    Ok(())
}

fn denied(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a confidential client, and a user who says no",
        "A television whose backend has a secret. It authenticates at both endpoints, in the header.",
    );
    let alice = alice()?;
    let mut stage = stage(policy(), 2, transcript)?;
    let flow = DeviceFlow::new(endpoints()?, BACKEND)
        .scope("openid")
        .secret_basic(SECRET);
    let (waiting, prompt) = stage.start(&flow, &issued(300))?;

    stage.until(seconds(3));
    let entered = stage.enter(&alice, &prompt.user_code);
    let review = stage.accepted(entered)?;
    stage.note("Alice has no television.");
    stage.after(seconds(1));
    let denied = stage.deny(&alice, review.session_key());
    stage.accepted(denied)?;

    let step = stage.poll(waiting, &Expected::error(Cause::Denied, "access_denied"))?;
    let outcome = stage.ends(step)?;
    let Outcome::Denied(_) = outcome else {
        return Err(stage.mismatch("a denial", name(&outcome)));
    };
    stage.says(Party::Device, "shows: the request was denied.");
    stage.note("It asks no more: RFC 8628, section 3.5, leaves it to the user to start again.");
    Ok(())
}

fn expired(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a code that nobody approves in time",
        "The codes of this server live for 12 s, so that the scene is short. Alice opens the page, and the doorbell rings.",
    );
    let alice = alice()?;
    let policy = policy().lifetime(seconds(12));
    let mut stage = stage(policy, 3, transcript)?;
    let (waiting, prompt) = stage.start(&cli()?, &issued(12))?;

    stage.until(seconds(4));
    let entered = stage.enter(&alice, &prompt.user_code);
    let review = stage.accepted(entered)?;
    let waiting = stage.poll(waiting, &pending())?;
    let waiting = stage.goes_on(waiting)?;
    let waiting = stage.poll(waiting, &pending())?;
    let waiting = stage.goes_on(waiting)?;

    stage.note(
        "By the device's clock the code is past its 12 s. The device asks one last time nonetheless: clocks differ, and \
        expiry is the server's word.",
    );
    let step = stage.poll(waiting, &Expected::error(Cause::Expired, "expired_token"))?;
    let outcome = stage.ends(step)?;
    let Outcome::Expired(Expiry::ByServer(_)) = outcome else {
        return Err(stage.mismatch("expiry, by the server", name(&outcome)));
    };
    stage.says(Party::Device, "shows: the code has expired; start again.");

    stage.until(seconds(20));
    let approved = stage.approve(&alice, review.session_key(), review.scope(), &consent()?);
    stage.refused(approved, "no decision, Expired")?;
    Ok(())
}

fn guessed(transcript: &mut Transcript) -> Result<()> {
    transcript.scene(
        "a page on which somebody guesses",
        "Mallory has an account and no device. Each user may enter five codes at once, then one a minute; a code is one of \
        25,600,000,000. Meanwhile the device is without a network, so that it does not poll.",
    );
    let (alice, mallory) = (alice()?, mallory()?);
    let mut stage = stage(policy(), 4, transcript)?;
    let (waiting, prompt) = stage.start(&cli()?, &issued(300))?;

    let guesses = ["BBBB-BBBB", "BBBB-BBBC", "BBBB-BBBD", "BBBB-BBBF"];
    for (typed, second) in guesses.into_iter().zip(10..) {
        stage.until(seconds(second));
        let entered = stage.enter(&mallory, typed);
        stage.refused(entered, "wrong code, Unknown")?;
    }
    stage.note("What cannot be a code pays a guess as well.");
    stage.until(seconds(14));
    let entered = stage.enter(&mallory, "hello");
    stage.refused(entered, "wrong code, Malformed")?;

    stage.until(seconds(15));
    let entered = stage.enter(&mallory, "BBBB-BBBG");
    stage.refused(entered, "too often, for 55s")?;
    stage.note(
        "The five are spent. The guess is paid for before anything is looked up, so the answer is the same for every code: \
        even for the right one, next.",
    );
    stage.until(seconds(18));
    let entered = stage.enter(&mallory, &prompt.user_code);
    stage.refused(entered, "too often, for 52s")?;

    stage.until(seconds(20));
    stage.note("The limit is Mallory's. Alice, whose device it is, is not locked out.");
    let entered = stage.enter(&alice, &prompt.user_code);
    stage.accepted(entered)?;

    stage.until(seconds(24));
    let outcome = waiting.cancel();
    let Outcome::Cancelled(None) = outcome else {
        return Err(stage.mismatch("nothing but the end", name(&outcome)));
    };
    stage.says(
        Party::Device,
        "is switched off. Nothing was in flight, so no token is lost.",
    );
    Ok(())
}

/// The scene's server, with codes of its own.
fn stage(policy: PolicyBuilder, seed: u64, transcript: &mut Transcript) -> Result<Stage<'_>> {
    let scope: Scope = SCOPE.parse()?;
    let tool = Registration::new(CLI, Authentication::Public)?
        .allow_device_grant()
        .allow_scope(scope.clone());
    let secret = Authentication::secret(SecretDigest::of(SECRET));
    let television = Registration::new(BACKEND, secret)?
        .allow_device_grant()
        .allow_scope(scope);
    let users = vec![alice()?, mallory()?];
    let host = Host::new(
        policy.build()?,
        vec![tool, television],
        users,
        Dice::new(seed),
    )?;
    Ok(Stage::new(host, transcript))
}

/// As `WorkOS` has it: 300 s, an interval of 5 s, a link with the code in it. The link is off by default, for it is what
/// phishing takes; the page makes the user compare the code.
fn policy() -> PolicyBuilder {
    Policy::builder(format!("{ISSUER}/device")).with_verification_uri_complete()
}

/// The claims of an ID token. **Verify its signature before you believe them.**
fn claims(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(payload);
    let decoded = decoded.map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&decoded)?)
}

/// Claims, to be read by people.
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
    )?)
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

/// What the host wants back when the tokens are minted.
fn consent() -> Result<HostValue> {
    let consent = Consent {
        org_id: "org_01K5ACME2B4D6F8H0J3L5N".to_owned(),
        sid: "app_consent_01K5C7E9G1J4M6P8R".to_owned(),
    };
    Ok(HostValue::new(serde_json::to_vec(&consent)?)?)
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

fn pending() -> Expected {
    Expected::error(Cause::Pending, "authorization_pending")
}

fn slow_down(interval: u64) -> Expected {
    Expected::error(Cause::TooFast, "slow_down")
        .member("interval", interval)
        .header("retry-after", &interval.to_string())
}
