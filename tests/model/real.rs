//! The real exchanges, with values in and out that a checker can hash and compare.
//!
//! Nothing is decided here. A session is represented by its stored form. An exchange cannot be copied, so an exchange in flight is
//! represented by the answers that it got so far: its [`Flight`], and what it has loaded. For its next step, a new exchange gets the same
//! answers up to that point. Exchanges are deterministic, so their results are cached. At its first use a step is run twice, and must give
//! the same bytes (invariant 10). No `Debug` may show a secret (invariant 11).

use core::cell::RefCell;
use core::fmt;
use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::{BTreeMap, HashMap};
use std::hash::DefaultHasher;
use std::sync::{LazyLock, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::Entropy;
use device_flow::memory::Memory;
use device_flow::server::{
    self, Cause, Change, Consent, Exchange, Finish, GrantRefusal, Next, Pace, PageError,
    RefreshOptions, Reply, Review, Server, Session, Status, Stored, Subject, Unavailable,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

use crate::support::{self, ACCESS_TOKEN, Codes, Host, NOW, SOURCE};

/// A moment: milliseconds after the codes were issued.
pub(crate) type Moment = i64;

/// When a code expires by the default policy.
pub(crate) const EXPIRY: Moment = 300_000;

/// How long an approval can be redeemed at least: the default cap and interval.
pub(crate) const REDEEM_TIME: Moment = 65_000;

/// How long the default policy keeps a session after its end.
pub(crate) const RETENTION: Moment = 300_000;

/// For how long the default policy accepts a refresh token that was replaced.
pub(crate) const GRACE: Moment = 30_000;

/// For how long the default policy accepts a refresh token that is not used: 30 days.
pub(crate) const IDLE: Moment = 30 * 86_400_000;

fn at(moment: Moment) -> OffsetDateTime {
    NOW + Duration::milliseconds(moment)
}

fn moment(at: OffsetDateTime) -> Moment {
    (at - NOW).whole_milliseconds().try_into().unwrap()
}

/// Returns a moment from its stored form, or `None` if that is not a number.
fn stored_moment(form: &serde_json::Value) -> Option<Moment> {
    Some(form.as_i64()? - NOW.unix_timestamp() * 1000)
}

/// Who may be signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum User {
    Alice,
    Bob,
}

impl User {
    fn subject(self) -> Subject {
        support::subject(match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
        })
    }
}

/// Which client polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Client {
    /// The client that the codes were issued to.
    Own,
    /// Another client that got hold of the device code.
    Foreign,
}

/// What a user does with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Decision {
    Approve,
    /// Approve less than the device asked for.
    ApproveLess,
    Deny,
    Withdraw,
    Release,
}

/// The secret of a refresh token, by its number.
pub(crate) type Secret = u8;

/// This many secrets are enough for every exploration.
const SECRETS: Secret = 16;

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Request {
    Poll(Client),
    Refresh(Secret),
    Revoke(Secret),
    Enter(User),
    Decide(User, Decision),
}

/// The seed of the entropy of the codes.
const SEED: u8 = 1;

/// Which login is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Setup {
    /// Without refresh tokens.
    Plain,
    /// With refresh tokens.
    Refreshed,
    /// With refresh tokens, at a server without a grace.
    Graceless,
}

/// One login, its server and two clients.
struct Fixture {
    server: Server,
    own: server::Client,
    foreign: server::Client,
    codes: Codes,
    issued: Row,
}

impl Fixture {
    fn new(setup: Setup) -> Self {
        let own = support::cli().allow_scope(support::scope("openid profile offline_access"));
        let (asked, grace) = match setup {
            Setup::Plain => ("openid+profile", GRACE),
            Setup::Refreshed => ("openid+offline_access", GRACE),
            Setup::Graceless => ("openid+offline_access", 0),
        };
        let grace = core::time::Duration::from_millis(grace.unsigned_abs());
        let server =
            support::server_of(support::policy_of(support::with_refresh(RefreshOptions {
                grace,
                ..RefreshOptions::default()
            })));
        let mut host = Host::new([own.clone()]);
        let codes = host.issue_for(&server, &own, SEED, asked, NOW);
        let issued = Row::of(host.session(&codes.key).unwrap());
        Self {
            server,
            own,
            foreign: support::backend(),
            codes,
            issued,
        }
    }

    fn of(setup: Setup) -> &'static Self {
        static FIXTURES: LazyLock<[Fixture; 3]> =
            LazyLock::new(|| [Setup::Plain, Setup::Refreshed, Setup::Graceless].map(Fixture::new));
        match setup {
            Setup::Plain => &FIXTURES[0],
            Setup::Refreshed => &FIXTURES[1],
            Setup::Graceless => &FIXTURES[2],
        }
    }
}

// Secrets.

fn drawn(secret: Secret) -> [u8; Entropy::OCTETS] {
    let mut octets = [secret + 1; Entropy::OCTETS];
    for (place, octet) in (0_u8..).zip(&mut octets) {
        *octet = octet.wrapping_mul(29).wrapping_add(place);
    }
    octets
}

/// The refresh token of each secret, as the server makes it. The tokens do not depend on the grace.
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let token = |secret| {
        let Fixture { server, own, .. } = Fixture::of(Setup::Refreshed);
        let mut host = Host::new([own.clone()]);
        let codes = host.issue_for(server, own, SEED, "openid+offline_access", NOW);
        host.approve(server, &support::alice(), &codes, NOW);
        host.entropy.push_back(Entropy::from(drawn(secret)));
        support::refresh_token(&host.poll(server, own, &codes.device_code, NOW))
    };
    (0..SECRETS).map(token).collect()
});

/// Returns the secret whose digest a record holds.
fn secret_of(digest: &serde_json::Value) -> Option<Secret> {
    static DIGESTS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let digest = |secret| URL_SAFE_NO_PAD.encode(Sha256::digest(&drawn(secret)[..32]));
        (0..SECRETS).map(digest).collect()
    });
    let digest = digest.as_str()?;
    let place = DIGESTS.iter().position(|own| own == digest);
    Some(Secret::try_from(place.expect("another secret")).unwrap())
}

// Sessions.

/// A session, by its stored form.
#[derive(Clone, Copy)]
pub(crate) struct Row(&'static Kept);

struct Kept {
    id: u64,
    form: String,
    session: Session,
    /// The form without the version.
    content: String,
    status: Status,
    claimant: Option<User>,
    scope: String,
    ends: Moment,
    rotation: Option<Rotation>,
}

/// The refresh tokens of an active login.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    pub(crate) current: Secret,
    pub(crate) previous: Option<Secret>,
    pub(crate) rotated_at: Moment,
}

static ROWS: LazyLock<Mutex<HashMap<u64, Row>>> = LazyLock::new(Mutex::default);

impl Row {
    /// Returns the session as it was issued.
    pub(crate) fn issued(setup: Setup) -> Self {
        Fixture::of(setup).issued
    }

    fn of(session: &Session) -> Self {
        let form = serde_json::to_string(session).unwrap();
        let mut hasher = DefaultHasher::new();
        form.hash(&mut hasher);
        let id = hasher.finish();
        let mut rows = ROWS.lock().unwrap();
        let row = *rows.entry(id).or_insert_with(|| {
            // The stored form holds everything, so a session that comes out of a store is the same again.
            let session: Session = serde_json::from_str(&form).unwrap();
            Self(Box::leak(Box::new(Kept::new(id, form.clone(), session))))
        });
        assert_eq!(row.0.form, form, "two sessions have one digest");
        row
    }

    pub(crate) fn status(self) -> Status {
        self.0.status
    }

    pub(crate) fn claimant(self) -> Option<User> {
        self.0.claimant
    }

    /// Returns the granted scope, or the scope that was asked for if nothing is granted yet.
    pub(crate) fn scope(self) -> &'static str {
        &self.0.scope
    }

    pub(crate) fn rotation(self) -> Option<Rotation> {
        self.0.rotation
    }

    /// Returns the moment from which on the device gets no tokens: the expiry, and after an approval the end of its time to redeem.
    pub(crate) fn ends(self) -> Moment {
        self.0.ends
    }

    pub(crate) fn purge_at(self) -> Moment {
        moment(self.0.session.purge_at())
    }

    /// Returns whether the session is in a final state.
    pub(crate) fn is_final(self) -> bool {
        match self.status() {
            Status::Denied | Status::Ended => true,
            Status::Pending | Status::Claimed | Status::Approved | Status::Active => false,
        }
    }

    pub(crate) fn version(self) -> u64 {
        self.0.session.version()
    }

    /// Returns the stored form without the version.
    pub(crate) fn content(self) -> &'static str {
        &self.0.content
    }

    /// Returns the session with the next version. A store may do that only for a change.
    pub(crate) fn bumped(self) -> Self {
        self.edited(|form| form)
    }

    /// Returns the session with the next version and another token in force. No host may do that.
    pub(crate) fn forced(self, secret: Secret) -> Self {
        self.edited(|mut form| {
            let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(&drawn(secret)[..32]));
            form["state"]["active"]["refresh"]["current"] = digest.into();
            form
        })
    }

    fn edited(self, edit: impl FnOnce(serde_json::Value) -> serde_json::Value) -> Self {
        let mut form: serde_json::Value = edit(serde_json::from_str(&self.0.form).unwrap());
        form["version"] = (self.version() + 1).into();
        Self::of(&serde_json::from_value(form).unwrap())
    }

    /// Returns how many refresh tokens are valid for this login at a moment.
    pub(crate) fn good_tokens(self, setup: Setup, now: Moment) -> usize {
        remembered(&GOOD, (setup, self, now), || {
            let is_good = |secret: &Secret| {
                let flight = Flight {
                    secret: Some(SECRETS - 1),
                    ..Flight::new(setup, Request::Refresh(*secret), now)
                };
                let asked = ask(flight, Some(self), None);
                matches!(asked, Asked::Write(writing) if writing.choices[0].committed.cause() == Some(Cause::Refreshed))
            };
            (0..SECRETS).filter(is_good).count()
        })
    }
}

impl Kept {
    fn new(id: u64, form: String, session: Session) -> Self {
        let claimant = session.claimant().map(|subject| match subject.as_str() {
            "alice" => User::Alice,
            _ => User::Bob,
        });
        let mut content: BTreeMap<String, serde_json::Value> = serde_json::from_str(&form).unwrap();
        content.remove("version");
        let state = &content["state"];
        let refresh = &state["active"]["refresh"];
        let rotation = secret_of(&refresh["current"]).map(|current| Rotation {
            current,
            previous: secret_of(&refresh["previous"]),
            rotated_at: stored_moment(&refresh["rotated_at"]).unwrap(),
        });
        let approval = match session.status() {
            Status::Approved => &state["approved"],
            Status::Ended => &state["ended"],
            Status::Active => &state["active"]["approval"],
            Status::Pending | Status::Claimed | Status::Denied => &serde_json::Value::Null,
        };
        let scope = approval["scope"]
            .as_str()
            .unwrap_or(session.scope().as_str());
        let expiry = moment(session.expires_at());
        // From the table: redeemable_until = max(expires_at, approved_at + the cap + the initial interval).
        let approved_at = stored_moment(&approval["approved_at"]);
        let kept = Self {
            id,
            status: session.status(),
            claimant,
            scope: scope.to_owned(),
            ends: approved_at.map_or(expiry, |approved_at| expiry.max(approved_at + REDEEM_TIME)),
            rotation,
            content: serde_json::to_string(&content).unwrap(),
            form,
            session,
        };
        assert_no_secret(&kept.form);
        assert_no_secret(&format!("{:?}", kept.session));
        kept
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kept {
            status,
            claimant,
            rotation,
            ..
        } = &self.0;
        write!(f, "{status:?} v{}", self.version())?;
        if let Some(Rotation {
            current, previous, ..
        }) = rotation
        {
            write!(f, " with {current} after {previous:?}")?;
        }
        claimant.map_or(Ok(()), |user| write!(f, " by {user:?}"))
    }
}

/// A pace, in its stored form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PaceForm {
    pub(crate) v: u8,
    pub(crate) last: i64,
    pub(crate) interval: u32,
    pub(crate) widened: bool,
}

impl PaceForm {
    pub(crate) fn of(pace: Pace) -> Self {
        serde_json::from_value(serde_json::to_value(pace).unwrap()).unwrap()
    }

    pub(crate) fn pace(self) -> Pace {
        serde_json::from_value(serde_json::to_value(self).unwrap()).unwrap()
    }
}

impl fmt::Debug for PaceForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last - NOW.unix_timestamp() * 1000;
        write!(f, "{} s since {last}", self.interval)?;
        f.write_str(if self.widened { " widened" } else { "" })
    }
}

// Exchanges.

/// An exchange before it loads: its request, and what has happened to it so far. Of the conflicts, only their number matters, and what the
/// last lost write was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flight {
    pub(crate) setup: Setup,
    pub(crate) request: Request,
    pub(crate) now: Moment,
    /// The secret that it has drawn, or would draw.
    pub(crate) secret: Option<Secret>,
    pub(crate) losses: u8,
    pub(crate) lost: Option<Lost>,
}

/// What a write was for that was lost to a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lost {
    Redemption,
    Replay,
    Refresh,
    Reuse,
    /// Another end of a login.
    End(EndOf),
    /// An entry or a decision of a user.
    Decision,
}

/// The other reasons to end a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum EndOf {
    Consent,
    Lifetime,
    Revocation,
}

impl Flight {
    pub(crate) const fn new(setup: Setup, request: Request, now: Moment) -> Self {
        Self {
            setup,
            request,
            now,
            secret: None,
            losses: 0,
            lost: None,
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reply(Answer),
    /// The result of an action of a user.
    Page(Result<(), PageError>),
}

impl End {
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Self::Reply(answer) => Some(answer.cause),
            Self::Page(_) => None,
        }
    }
}

/// The response to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) cause: Cause,
    /// Status, headers and body.
    pub(crate) bytes: &'static str,
    /// The `error` of the body, if there is one.
    pub(crate) error: Option<&'static str>,
}

impl Answer {
    fn of(reply: &Reply) -> Self {
        let response = reply.response();
        let headers = response.headers();
        let headers = headers.map(|(name, value)| format!("{name}: {value}"));
        let headers = headers.collect::<Vec<_>>().join("\n");
        let bytes = format!("{}\n{headers}\n\n{}", response.status(), response.body());
        assert_no_secret(&format!("{reply:?}"));
        if !matches!(reply.cause(), Cause::Granted | Cause::Refreshed) {
            assert_no_secret(&bytes);
        }
        let bytes: &str = String::leak(bytes);
        let error = bytes.split_once(r#""error":""#);
        Self {
            cause: reply.cause(),
            bytes,
            error: error.and_then(|(_, rest)| rest.split('"').next()),
        }
    }
}

/// What an exchange asks for after it has loaded.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    Done(End),
    /// The pace to save, and how the exchange ends then.
    Pace(PaceForm, End),
    Write(&'static Writing),
}

/// A guarded write that an exchange asks for.
pub(crate) struct Writing {
    /// What the host can write: the change that is asked for, and if tokens are to be minted for it, also the end of the login instead.
    pub(crate) choices: Vec<Choice>,
    /// Whether tokens are minted for the first choice.
    pub(crate) mints: bool,
    /// How the exchange ends if the outcome of the write is unknown.
    pub(crate) unknown: End,
    /// How the exchange ends if the host refuses to mint. Then nothing is written.
    pub(crate) refused: Vec<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) write: Write,
    pub(crate) committed: End,
    /// What happens after a conflict: the exchange loads again, or it gives up and ends like this.
    pub(crate) conflict: Result<Lost, End>,
}

/// A guarded change, with the session from which it was made, and the input from which an exchange makes it again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Write {
    input: Input,
    is_consent_gone: bool,
    read: Row,
    after: Row,
}

/// The input of an exchange up to its write: what has happened to it so far, and the session and the pace that it loads.
type Input = (Flight, Option<Row>, Option<PaceForm>);

impl Write {
    pub(crate) fn read(self) -> Row {
        self.read
    }

    /// Returns what the embedded store holds after the change, or `None` if the guard did not allow it.
    pub(crate) fn guarded(self, stored: Row) -> Option<Row> {
        remembered(&APPLIED, (stored, self.read, self.after), || {
            let act = Act::Store(stored, self.is_consent_gone);
            match run(self.input, act) {
                Ran::Stored(row) => row,
                ran @ (Ran::Done(_) | Ran::Pace(..) | Ran::Writes(..) | Ran::Loads) => {
                    unreachable!("{ran:?}, but it is stored")
                }
            }
        })
    }

    /// Returns the session that was read, with the change. A store without the guard writes this.
    pub(crate) fn unguarded(self) -> Row {
        self.after
    }
}

/// What the host does when it is asked for a write. The flag says whether the host finds that the consent is gone.
#[derive(Clone, Copy)]
enum Act {
    /// Only looks at the write.
    Look(bool),
    /// Applies the write to a store that holds this session.
    Store(Row, bool),
    /// Answers with this outcome of the write.
    Answer(Result<server::Write, Unavailable>, bool),
    /// Refuses to mint.
    Refuse(GrantRefusal),
}

/// The result of an [`Act`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ran {
    Done(End),
    Pace(PaceForm, End),
    /// The exchange asks for a write that leads to this session. The flag says whether tokens are minted for it.
    Writes(Row, bool),
    Stored(Option<Row>),
    /// The exchange loads again.
    Loads,
}

/// Returns what an exchange asks for after it has loaded this session and this pace.
pub(crate) fn ask(flight: Flight, row: Option<Row>, pace: Option<PaceForm>) -> Asked {
    let input = (flight, row, pace);
    remembered(&ASKED, input, || match twice(input, Act::Look(false)) {
        Ran::Done(end) => Asked::Done(end),
        Ran::Pace(pace, end) => Asked::Pace(pace, end),
        Ran::Writes(after, mints) => Asked::Write(writing(input, row.unwrap(), after, mints)),
        Ran::Stored(_) | Ran::Loads => unreachable!("it was only looked at"),
    })
}

fn writing(input: Input, read: Row, after: Row, mints: bool) -> &'static Writing {
    let ended = |act| match twice(input, act) {
        Ran::Done(end) => end,
        ran @ (Ran::Pace(..) | Ran::Writes(..) | Ran::Stored(_) | Ran::Loads) => {
            unreachable!("{ran:?} is no end")
        }
    };
    let choice = |after, is_consent_gone| {
        let write = Write {
            input,
            is_consent_gone,
            read,
            after,
        };
        let committed = ended(Act::Answer(Ok(server::Write::Committed), is_consent_gone));
        let lost = match (committed.cause(), input.0.request) {
            (None, _) => Lost::Decision,
            (Some(Cause::Granted), _) => Lost::Redemption,
            (Some(Cause::Replay), _) => Lost::Replay,
            (Some(Cause::Refreshed), _) => Lost::Refresh,
            (Some(Cause::Reuse), _) => Lost::Reuse,
            (Some(Cause::ConsentGone), _) => Lost::End(EndOf::Consent),
            (Some(Cause::LoginExpired), _) => Lost::End(EndOf::Lifetime),
            (Some(Cause::Revoked), _) => Lost::End(EndOf::Revocation),
            (cause, request) => unreachable!("{cause:?} of {request:?} writes nothing"),
        };
        let conflict = Act::Answer(Ok(server::Write::Conflict), is_consent_gone);
        let conflict = match twice(input, conflict) {
            Ran::Loads => {
                let key = (input.0.setup, input.0.request, input.0.now, lost);
                let mut losses = LOSSES.lock().unwrap();
                losses.entry(key).or_insert((read, is_consent_gone));
                Ok(lost)
            }
            Ran::Done(end) => Err(end),
            ran @ (Ran::Pace(..) | Ran::Writes(..) | Ran::Stored(_)) => {
                unreachable!("{ran:?} after a conflict")
            }
        };
        Choice {
            write,
            committed,
            conflict,
        }
    };
    let mut choices = vec![choice(after, false)];
    let mut refused = Vec::new();
    if mints {
        let Ran::Writes(over, false) = twice(input, Act::Look(true)) else {
            unreachable!("the login is ended where the consent is gone")
        };
        choices.push(choice(over, true));
        let error = GrantRefusal::error("invalid_target", "no such resource").unwrap();
        let refusals = [error, GrantRefusal::failed()];
        refused.extend(refusals.map(|refusal| ended(Act::Refuse(refusal))));
    }
    let unknown = ended(Act::Answer(Err(Unavailable), false));
    if mints {
        assert_eq!(ended(Act::Answer(Err(Unavailable), true)), unknown);
    }
    Box::leak(Box::new(Writing {
        choices,
        mints,
        unknown,
        refused,
    }))
}

/// For each kind of lost write: a session that leads to such a write, and whether the consent is gone then.
type Losses = HashMap<(Setup, Request, Moment, Lost), (Row, bool)>;
static LOSSES: LazyLock<Mutex<Losses>> = LazyLock::new(Mutex::default);

/// Runs an exchange twice, and asserts that the same inputs give the same bytes.
fn twice(input: Input, act: Act) -> Ran {
    let (one, other) = (run(input, act), run(input, act));
    assert_eq!(one, other, "the same inputs gave other bytes");
    one
}

/// Runs a new exchange up to the write that it asks for, and acts there; or to its end.
fn run(input: Input, act: Act) -> Ran {
    let (flight, ..) = input;
    let fixture = Fixture::of(flight.setup);
    let Fixture {
        server,
        own,
        foreign,
        codes,
        ..
    } = fixture;
    let now = at(flight.now);
    let is_foreign = flight.request == Request::Poll(Client::Foreign);
    let client = if is_foreign { foreign } else { own };
    let at_token = |body: &str| {
        support::sent_by(client, body, |request| {
            drive(input, act, server.token(request, SOURCE, now))
        })
    };
    match flight.request {
        Request::Poll(_) => at_token(&support::poll_body(client.id(), &codes.device_code)),
        Request::Refresh(secret) => {
            let token = &TOKENS[usize::from(secret)];
            at_token(&support::refresh_body(client.id(), token))
        }
        Request::Revoke(secret) => {
            let body = support::revocation_body(client.id(), &TOKENS[usize::from(secret)]);
            support::sent_by(client, &body, |request| {
                drive(input, act, server.revocation(request, SOURCE, now))
            })
        }
        Request::Enter(user) => {
            let user = user.subject();
            drive(input, act, server.enter(&codes.user_code, &user, "", now))
        }
        Request::Decide(user, decision) => {
            let user = user.subject();
            let consent = if decision == Decision::ApproveLess {
                Consent::to(support::scope("openid"))
            } else {
                Consent::to_all()
            };
            let exchange = match decision {
                Decision::Approve | Decision::ApproveLess => {
                    server.approve(&codes.key, &user, &consent, now)
                }
                Decision::Deny => server.deny(&codes.key, &user, now),
                Decision::Withdraw => server.withdraw(&codes.key, &user, now),
                Decision::Release => server.release(&codes.key, &user, now),
            };
            drive(input, act, exchange)
        }
    }
}

/// Turns the result of an exchange into an [`End`].
trait Ends {
    fn end(&self) -> End;
}

impl Ends for Reply {
    fn end(&self) -> End {
        End::Reply(Answer::of(self))
    }
}

impl Ends for Result<Review, PageError> {
    fn end(&self) -> End {
        assert_no_secret(&format!("{self:?}"));
        End::Page(self.as_ref().map(drop).map_err(|error| *error))
    }
}

impl Ends for Result<Session, PageError> {
    fn end(&self) -> End {
        End::Page(self.as_ref().map(drop).map_err(|error| *error))
    }
}

fn drive<'r, T: Finish<'r> + Ends>(
    (flight, row, pace): Input,
    act: Act,
    mut exchange: Exchange<'r, T>,
) -> Ran {
    let fixture = Fixture::of(flight.setup);
    let lost = flight.lost.map(|lost| {
        let key = (flight.setup, flight.request, flight.now, lost);
        LOSSES.lock().unwrap()[&key]
    });
    let (mut losses, mut has_loaded, mut saved) = (0, false, None);
    // What it loads: first the sessions that led to its lost writes, then the row, once.
    let mut load = |losses| {
        let row = match (losses < flight.losses, has_loaded) {
            (true, _) => Some(lost.unwrap().0),
            (false, true) => return None,
            (false, false) => {
                has_loaded = true;
                row
            }
        };
        Some(row.map(|row| Stored {
            pace: pace.map(PaceForm::pace),
            session: row.0.session.clone(),
        }))
    };
    loop {
        assert_no_secret(&format!("{exchange:?}"));
        match exchange.next() {
            Next::Client(claim, ask) => {
                assert_no_secret(&format!("{claim:?}"));
                let mut known = [&fixture.own, &fixture.foreign].into_iter();
                ask.answer(Ok(known.find(|own| Some(own.id()) == claim.client_id())));
            }
            Next::Take(_, ask) => ask.answer(Ok(Ok(()))),
            Next::Load(_, ask) => match load(losses) {
                Some(stored) => ask.answer(Ok(stored.as_ref())),
                None => return Ran::Loads,
            },
            Next::LoadByUserKey(key, ask) => match load(losses) {
                Some(stored) => {
                    let stored = stored.filter(|stored| stored.session.user_key() == Some(key));
                    ask.answer(Ok(stored.as_ref()));
                }
                None => return Ran::Loads,
            },
            Next::Draw(ask) => {
                let secret = flight.secret.expect("a secret to draw");
                ask.answer(Ok(Entropy::from(drawn(secret))));
            }
            Next::Insert(..) => unreachable!("nothing is issued"),
            Next::Mint(grant, change, ask) => {
                assert_no_secret(&format!("{grant:?} {change:?}"));
                if losses < flight.losses {
                    if lost.unwrap().1 {
                        ask.refuse(GrantRefusal::consent_gone());
                    } else {
                        losses += 1;
                        ask.answer(Ok(server::Write::Conflict), &support::tokens());
                    }
                    continue;
                }
                match act {
                    Act::Look(false) => return Ran::Writes(Row::of(change.session()), true),
                    Act::Store(stored, false) => return store(stored, change),
                    Act::Answer(written, false) => ask.answer(written, &support::tokens()),
                    Act::Look(true) | Act::Store(_, true) | Act::Answer(_, true) => {
                        ask.refuse(GrantRefusal::consent_gone());
                    }
                    Act::Refuse(refusal) => ask.refuse(refusal),
                }
            }
            Next::Change(change, ask) => {
                if losses < flight.losses {
                    losses += 1;
                    ask.answer(Ok(server::Write::Conflict));
                    continue;
                }
                match act {
                    Act::Look(_) => return Ran::Writes(Row::of(change.session()), false),
                    Act::Store(stored, _) => return store(stored, change),
                    Act::Answer(written, _) => ask.answer(written),
                    Act::Refuse(_) => unreachable!("there is nothing to mint"),
                }
            }
            Next::SavePace(_, pace) => saved = Some(PaceForm::of(pace)),
            Next::Done(end) => {
                let end = end.end();
                return saved.map_or(Ran::Done(end), |pace| Ran::Pace(pace, end));
            }
        }
    }
}

/// Applies a change to an embedded store that holds `stored`, and returns the result.
fn store(stored: Row, change: Change<'_>) -> Ran {
    let mut memory = Memory::new();
    let _ = memory.insert(&stored.0.session);
    let written = memory.change(change);
    let after = Row::of(&memory.load(change.key()).unwrap().session);
    if written == server::Write::Conflict {
        assert_eq!(after, stored);
        return Ran::Stored(None);
    }
    Ran::Stored(Some(after))
}

// Cached results, for each thread.

pub(crate) type Memo<K, V> = RefCell<HashMap<K, V, BuildHasherDefault<Mixer>>>;

/// A fast hash for keys that nobody chooses. It must be fast because results are looked up at every step.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word.cast_unsigned());
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u64(u64::try_from(discriminant).unwrap_or_default());
    }

    fn write_u64(&mut self, word: u64) {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(ODD);
    }
}

thread_local! {
    static ASKED: Memo<Input, Asked> = RefCell::default();
    static APPLIED: Memo<(Row, Row, Row), Option<Row>> = RefCell::default();
    static GOOD: Memo<(Setup, Row, Moment), usize> = RefCell::default();
}

pub(crate) fn remembered<K: Copy + Eq + Hash, V: Copy>(
    kept: &'static std::thread::LocalKey<Memo<K, V>>,
    input: K,
    make: impl FnOnce() -> V,
) -> V {
    if let Some(before) = kept.with_borrow(|kept| kept.get(&input).copied()) {
        return before;
    }
    let fresh = make();
    kept.with_borrow_mut(|kept| kept.insert(input, fresh));
    fresh
}

/// Asserts that a `Debug` output, a stored form or a refusal has no code and no token in it (invariant 11).
fn assert_no_secret(text: &str) {
    static SECRETS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut host = Host::new([support::cli()]);
        let codes = host.issue(&support::server(), &support::cli(), SEED, NOW);
        let canonical = codes.user_code.replace('-', "");
        let access = ACCESS_TOKEN.to_owned();
        vec![codes.device_code, codes.user_code, canonical, access]
    });
    for secret in &*SECRETS {
        assert!(!text.contains(secret), "a secret is shown: {text}");
    }
}
