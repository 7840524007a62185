//! The form of the server's vectors: `tests/vectors/README.md` says what each member means.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[allow(dead_code, reason = "for the reader")]
    pub(crate) about: String,
    pub(crate) base: i64,
    pub(crate) content_type: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) policy: Map<String, Value>,
    pub(crate) clients: BTreeMap<String, Client>,
    pub(crate) tokens: Map<String, Value>,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) rows: Vec<String>,
    pub(crate) says: String,
    #[serde(default)]
    pub(crate) policy: Map<String, Value>,
    #[serde(default)]
    pub(crate) clients: BTreeMap<String, Option<Client>>,
    pub(crate) session: Option<Start>,
    #[serde(default)]
    pub(crate) quotas: Vec<Taken>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Numbers {
    pub(crate) verification_uri: String,
    pub(crate) verification_uri_complete: bool,
    pub(crate) realm: String,
    pub(crate) lifetime: u64,
    pub(crate) interval: u64,
    pub(crate) cap: u64,
    pub(crate) tolerance: u64,
    pub(crate) tolerance_part: u64,
    pub(crate) retry_window: u64,
    pub(crate) retention: u64,
    pub(crate) redeem_time: u64,
    pub(crate) user_code: Shape,
    pub(crate) max_body: usize,
    pub(crate) max_parameters: usize,
    pub(crate) retry_later: u64,
    pub(crate) wrong_secrets: Rate,
    pub(crate) issuing: Rate,
    pub(crate) guesses: Option<Rate>,
    pub(crate) refresh: Option<Refresh>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    pub(crate) scope: String,
    pub(crate) idle: u64,
    pub(crate) absolute: Option<u64>,
    pub(crate) grace: u64,
    pub(crate) limit: Rate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    pub(crate) alphabet: String,
    pub(crate) length: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) period: u64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    pub(crate) name: Option<String>,
    pub(crate) method: Method,
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
    #[serde(default)]
    pub(crate) compared_by_host: bool,
    pub(crate) device_grant: bool,
    pub(crate) scope: String,
    pub(crate) default_scope: Option<String>,
    #[serde(default)]
    pub(crate) disabled: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Method {
    None,
    ClientSecret,
    ClientSecretBasic,
    PrivateKeyJwt,
    TlsClientAuth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    pub(crate) client_id: String,
    pub(crate) scope: String,
    pub(crate) issued_at: i64,
    pub(crate) expires_at: i64,
    pub(crate) state: State,
    pub(crate) user: Option<String>,
    pub(crate) claimed_at: Option<i64>,
    pub(crate) approved_at: Option<i64>,
    pub(crate) granted: Option<String>,
    pub(crate) denied_at: Option<i64>,
    pub(crate) redeemed_at: Option<i64>,
    pub(crate) pace: Option<Pace>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Pending,
    Claimed,
    Approved,
    Denied,
    Active,
    Ended,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pace {
    pub(crate) last: i64,
    pub(crate) interval: i64,
    pub(crate) widened: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Taken {
    pub(crate) limit: Kind,
    #[serde(default)]
    pub(crate) client_id: String,
    #[serde(default)]
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) user: String,
    pub(crate) times: u32,
    pub(crate) at: i64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    WrongSecrets,
    Issuing,
    GuessesOfUser,
    GuessesFromSource,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) at: i64,
    pub(crate) request: Option<Sent>,
    pub(crate) source: Option<String>,
    #[serde(default)]
    pub(crate) host: Host,
    #[serde(default)]
    pub(crate) store: Store,
    pub(crate) response: Option<Expected>,
    pub(crate) dispatched: Option<String>,
    pub(crate) after: Option<After>,
    pub(crate) revoke_tokens: Option<bool>,
    pub(crate) draws: Option<usize>,
    pub(crate) looks_up_client: Option<bool>,
    pub(crate) looks_up_session: Option<bool>,
    pub(crate) user: Option<String>,
    pub(crate) does: Option<Deed>,
    pub(crate) typed: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) review: Option<Map<String, Value>>,
    pub(crate) refused: Option<Refused>,
    pub(crate) retry_after: Option<u32>,
    /// The number of the session, in the order in which they were issued, from one.
    pub(crate) session: Option<usize>,
    #[serde(default)]
    pub(crate) clients: BTreeMap<String, Option<Client>>,
}

/// Whether something was refused, or the reason that the user is told.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Refused {
    Somehow(bool),
    Because(String),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    Enter,
    Approve,
    Deny,
    Withdraw,
    Release,
    Purge,
    LosePace,
    ChangeKeys,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    pub(crate) endpoint: Endpoint,
    #[serde(default = "post")]
    pub(crate) method: String,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "the core never sees it")
    )]
    pub(crate) query: Option<String>,
    pub(crate) content_type: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) authorization: Vec<String>,
    #[serde(default)]
    pub(crate) body: String,
    pub(crate) body_base64: Option<String>,
}

fn post() -> String {
    "POST".into()
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endpoint {
    Token,
    DeviceAuthorization,
    Revocation,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Host {
    pub(crate) grants: Vec<String>,
    pub(crate) registry: Option<Fails>,
    pub(crate) verdict: Option<Finding>,
    pub(crate) refuses: Option<Refusal>,
    pub(crate) consent: Option<Gone>,
    pub(crate) minting: Option<Fails>,
    pub(crate) entropy: Option<Drawn>,
    pub(crate) tokens: Option<Map<String, Value>>,
}

/// What the host found when it verified the client by itself.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    Authenticated(String),
    Refused,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fails {
    Fails,
}

/// What the generator of random octets does.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Drawn {
    Fails,
    Blank,
    SameUserCode,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gone {
    Gone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusal {
    pub(crate) error: String,
    pub(crate) status: u16,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    pub(crate) load: Option<Load>,
    pub(crate) save_pace: Option<Fails>,
    pub(crate) take: Option<Fails>,
    pub(crate) change: Vec<Write>,
    pub(crate) insert: Vec<Insert>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    Fails,
    Corrupt,
    UnknownVersion,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub(crate) says: Says,
    pub(crate) meanwhile: Option<Meanwhile>,
    pub(crate) written: Option<bool>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Says {
    #[default]
    Won,
    Lost,
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Meanwhile {
    Redeemed,
    Withdrawn,
    Released,
    Removed,
    /// With the refresh token of this number, in the order in which they were issued, from one.
    Refreshed(usize),
    /// By this user.
    Entered(String),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Insert {
    New,
    UserCodeTaken,
    DeviceCodeTaken,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Absent: the body is empty.
    pub(crate) body: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) free: BTreeMap<String, Free>,
    pub(crate) identical: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Free {
    pub(crate) characters: String,
    pub(crate) least: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct After {
    pub(crate) wrote: Wrote,
    pub(crate) state: Option<State>,
    pub(crate) pace: Option<Pace>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wrote {
    #[default]
    Nothing,
    Pace,
    Session,
}
