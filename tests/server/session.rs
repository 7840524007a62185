//! The stored forms of a session and of a pace: what was written is read again as it was, and anything else is refused.
//!
//! The forms are written out here. So if a form that stores already hold is changed, a test fails.

use device_flow::server::{Pace, Session, Status};
use serde_json::{Value, json};

use crate::support::login::{
    LIFETIME, Login, REDEEM_TIME, RETENTION, assert_granted, at, pace_of, stored_at,
};
use crate::support::{self, NOW, alice, cli, post, server};

/// The texts that a host finds in the error of its deserializer.
const CORRUPT: &str = "the stored form is corrupt: its parts contradict each other";
const VERSION: &str =
    "another version of this crate wrote the stored form; discard it, or read it with that version";

/// Returns a login in every state, with the stored form of the state.
fn every_state() -> [(Login, Value); 6] {
    let approval = json!({
        "subject": "alice",
        "scope": "openid profile",
        "value": [],
        "approved_at": stored_at(2000),
        "redeemable_until": stored_at(LIFETIME),
    });
    let mut claimed = Login::new();
    claimed.claim(1000);
    let mut denied = Login::new();
    denied.deny(1000);
    let mut redeemed = Login::approved_at(2000);
    assert_granted(&redeemed.poll(3000).reply, "openid profile");
    let mut revoked = Login::approved_at(2000);
    revoked.withdraw();
    let at = stored_at(3000);
    [
        (Login::new(), json!("pending")),
        (claimed, json!({ "claimed": "alice" })),
        (Login::approved_at(2000), json!({ "approved": approval })),
        (denied, json!({ "denied": "alice" })),
        (
            redeemed,
            json!({ "active": { "approval": approval, "redeemed_at": at, "refresh": null } }),
        ),
        (revoked, json!({ "ended": approval })),
    ]
}

/// Returns the stored form of a login that was approved.
fn approved() -> Value {
    Login::approved_at(2000).form()
}

fn read(form: &Value) -> Result<Session, serde_json::Error> {
    serde_json::from_str(&form.to_string())
}

/// Asserts that a form is refused as corrupt.
#[track_caller]
fn assert_corrupt(form: &Value) {
    let error = read(form).unwrap_err().to_string();
    assert!(error.starts_with(CORRUPT), "{error}");
}

// The session.

#[test]
fn a_session_has_this_form_and_no_other() {
    let versions = [1, 2, 3, 3, 4, 4];
    for ((login, state), version) in every_state().into_iter().zip(versions) {
        let session = login.session();
        let wanted = json!({
            "v": 2,
            "key": session.key().to_string(),
            "user_key": session.user_key().map(ToString::to_string),
            "version": version,
            "client_id": "client_cli",
            "scope": "openid profile",
            "issued_at": stored_at(0),
            "expires_at": stored_at(LIFETIME),
            "purge_at": stored_at(LIFETIME + RETENTION),
            "source": null,
            "state": state,
        });
        assert_eq!(login.form(), wanted);
    }
}

#[test]
fn a_session_is_read_as_it_was_written_in_every_state() {
    for (login, _) in every_state() {
        let written = serde_json::to_string(login.session()).unwrap();
        let session: Session = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&session).unwrap(), written);
        assert_eq!(session.key(), login.session().key());
        assert_eq!(session.user_key(), login.session().user_key());
        assert_eq!(session.status(), login.status());
        assert_eq!(session.version(), login.session().version());
        assert_eq!(session.claimant(), login.session().claimant());
        assert_eq!(session.issued_at(), NOW);
        assert_eq!(session.expires_at(), at(LIFETIME));
        assert_eq!(session.purge_at(), at(LIFETIME + RETENTION));
        assert_eq!(session.client_id(), "client_cli");
        assert_eq!(session.scope(), login.session().scope());
    }
}

#[test]
fn a_session_that_was_stored_goes_on_where_it_was() {
    // Between any two steps, the session is written and read again.
    let mut login = Login::new();
    let through = |login: &mut Login| {
        let stored = serde_json::to_string(login.session()).unwrap();
        let session: Session = serde_json::from_str(&stored).unwrap();
        login.host.store = device_flow::memory::Memory::new();
        let _ = login.host.store.insert(&session);
    };
    through(&mut login);
    login.claim(0);
    through(&mut login);
    login.approve_by(&alice(), LIFETIME - 1).unwrap();
    through(&mut login);
    assert_granted(
        &login.poll(LIFETIME - 2 + REDEEM_TIME).reply,
        "openid profile",
    );
    through(&mut login);
    assert_eq!(login.status(), Status::Active);
    assert_eq!(login.session().version(), 4);
}

#[test]
fn a_session_keeps_its_source() {
    let (server, mut host) = (server(), support::Host::new([cli()]));
    let shown = Some("Zürich, \"curl\"");
    let request = post("client_id=client_cli");
    let reply = host.run(server.device_authorization(request, "", shown, NOW));
    let session = host.session(&support::Codes::of(&reply).key).unwrap();
    let form = serde_json::to_value(session).unwrap();
    assert_eq!(form.get("source"), Some(&json!("Zürich, \"curl\"")));
    assert_eq!(read(&form).unwrap().shown_source(), shown);
}

/// The store holds digests only.
#[test]
fn a_stored_session_holds_no_code() {
    for (login, _) in every_state() {
        let stored = serde_json::to_string(login.session()).unwrap();
        assert!(!stored.contains(&login.codes.device_code));
        assert!(!stored.contains(&login.codes.user_code));
        assert!(!stored.contains(&login.codes.user_code.replace('-', "")));
    }
}

#[test]
fn a_session_of_an_unknown_version_is_refused() {
    for version in [0, 1, 3, 255] {
        let mut form = approved();
        form["v"] = json!(version);
        let error = read(&form).unwrap_err().to_string();
        assert!(error.starts_with(VERSION), "{error}");
    }
    for version in [json!(256), json!(-1), json!("1"), json!(null)] {
        let mut form = approved();
        form["v"] = version;
        assert!(read(&form).is_err());
    }
}

#[test]
fn a_session_with_an_unknown_member_is_refused() {
    let mut form = approved();
    form["pace"] = json!(null);
    assert!(read(&form).is_err());
}

#[test]
fn a_grant_with_an_unknown_member_is_refused() {
    for (login, _) in every_state() {
        let mut form = login.form();
        for place in [
            "/state/approved",
            "/state/ended",
            "/state/active/approval",
            "/state/active",
        ] {
            if let Some(grant) = form.pointer_mut(place) {
                grant["resource"] = json!("https://api.example.com/");
                assert!(read(&form).is_err(), "{place}");
                form = login.form();
            }
        }
    }
}

#[test]
fn a_session_without_a_member_is_refused() {
    let form = approved();
    for member in form.as_object().unwrap().keys() {
        // An option may be absent: a session without a source is complete.
        if member != "source" {
            let mut form = form.clone();
            form.as_object_mut().unwrap().remove(member);
            assert!(read(&form).is_err(), "{member}");
        }
    }
    let grant = form.pointer("/state/approved").unwrap();
    for member in grant.as_object().unwrap().keys() {
        let mut form = form.clone();
        let grant = form.pointer_mut("/state/approved").unwrap();
        grant.as_object_mut().unwrap().remove(member);
        assert!(read(&form).is_err(), "{member}");
    }
}

#[test]
fn a_session_with_a_member_twice_is_refused() {
    let form = approved().to_string();
    let twice = form.replacen('{', r#"{"version":1,"#, 1);
    assert!(serde_json::from_str::<Session>(&twice).is_err());
}

#[test]
fn a_session_with_a_member_of_another_kind_is_refused() {
    let grant = approved()["state"]["approved"].clone();
    let cases = [
        ("key", json!("short")),
        ("key", json!(vec![0; 32])),
        ("user_key", json!(format!("{}=", "A".repeat(43)))),
        ("user_key", json!("+".repeat(43))),
        ("version", json!("1")),
        ("version", json!(-1)),
        ("client_id", json!(7)),
        ("scope", json!("openid  profile")),
        ("scope", json!("open\"id")),
        ("scope", json!(["openid"])),
        ("issued_at", json!("2026-03-21T12:00:00Z")),
        ("expires_at", json!(1.5)),
        ("purge_at", json!(null)),
        ("source", json!(1)),
        ("state", json!("expired")),
        ("state", json!("Pending")),
        ("state", json!("approved")),
        ("state", json!({})),
        ("state", json!({ "approved": grant, "denied": "alice" })),
        ("state", json!({ "claimed": "" })),
        ("state", json!({ "claimed": "a\nb" })),
        ("state", json!({ "claimed": "a".repeat(256) })),
    ];
    for (member, value) in cases {
        let mut form = approved();
        form[member] = value.clone();
        assert!(read(&form).is_err(), "{member}: {value}");
    }
    for (member, value) in [
        ("value", json!(vec![0; 1025])),
        ("value", json!([256])),
        ("value", json!("AAAA")),
        ("subject", json!("")),
        ("scope", json!("a  b")),
        ("approved_at", json!(null)),
    ] {
        let mut form = approved();
        form["state"]["approved"][member] = value.clone();
        assert!(read(&form).is_err(), "{member}: {value}");
    }
}

#[test]
fn a_session_whose_parts_contradict_each_other_is_refused() {
    let cases = [
        // The first version is 1.
        ("version", json!(0)),
        // The code would expire when it is issued, or the session would be purged before it expires.
        ("expires_at", json!(stored_at(0))),
        ("expires_at", json!(stored_at(-1))),
        ("issued_at", json!(stored_at(LIFETIME))),
        ("purge_at", json!(stored_at(LIFETIME))),
        ("purge_at", json!(stored_at(0))),
        // A client cannot have one of these ids.
        ("client_id", json!("")),
        ("client_id", json!("é")),
        ("client_id", json!("a\nb")),
        // More was granted than was asked for.
        ("scope", json!("openid")),
        ("scope", json!("")),
        // The code was not redeemed, so the session still has its user key.
        ("user_key", json!(null)),
    ];
    for (member, value) in cases {
        let mut form = approved();
        form[member] = value;
        assert_corrupt(&form);
    }
}

#[test]
fn a_grant_wider_than_the_request_is_refused_in_every_state_that_has_one() {
    for (login, _) in every_state() {
        for place in ["/state/approved", "/state/ended", "/state/active/approval"] {
            let mut form = login.form();
            if let Some(grant) = form.pointer_mut(place) {
                grant["scope"] = json!("openid profile email");
                assert_corrupt(&form);
            }
        }
    }
}

/// U8: if some scope was asked for, an empty approval cannot have been written.
#[test]
fn a_grant_of_nothing_where_some_was_asked_is_refused() {
    let mut form = approved();
    form["state"]["approved"]["scope"] = json!("");
    assert_corrupt(&form);
}

/// `redeemable_until` is the later of `expires_at` and the end of the time to redeem the approval. So it is never before `expires_at`.
#[test]
fn a_grant_that_ends_before_its_session_is_refused() {
    let mut form = approved();
    form["state"]["approved"]["redeemable_until"] = json!(stored_at(LIFETIME - 1));
    assert_corrupt(&form);
}

/// `purge_at` comes after `redeemable_until`. Otherwise a store would remove a code that can still be redeemed.
#[test]
fn a_session_that_is_purged_before_its_grant_ends_is_refused() {
    let mut form = approved();
    form["state"]["approved"]["redeemable_until"] = json!(stored_at(LIFETIME + RETENTION));
    assert_corrupt(&form);
    form["state"]["approved"]["redeemable_until"] = json!(i64::MAX);
    assert_corrupt(&form);
}

/// U6: an expired session is not approved.
#[test]
fn an_approval_at_or_after_expiry_is_refused() {
    let mut form = approved();
    form["state"]["approved"]["approved_at"] = json!(stored_at(LIFETIME));
    form["state"]["approved"]["redeemable_until"] = json!(stored_at(LIFETIME + REDEEM_TIME));
    form["purge_at"] = json!(stored_at(LIFETIME + REDEEM_TIME + RETENTION));
    assert_corrupt(&form);
}

/// R5: a refresh token is valid for some time after each rotation, and its session is kept for longer than that.
#[test]
fn a_refresh_token_that_ends_at_its_rotation_or_at_the_purge_is_refused() {
    let mut login = Login::approved_at(2000);
    assert_granted(&login.poll(3000).reply, "openid profile");
    let mut form = login.form();
    let until = stored_at(LIFETIME + 3000);
    form["state"]["active"]["refresh"] = json!({
        "current": form["key"], "previous": null, "rotated_at": stored_at(3000), "until": until,
    });
    form["purge_at"] = json!(until + 1);
    assert!(read(&form).is_ok());
    let mut kept_too_short = form.clone();
    kept_too_short["purge_at"] = json!(until);
    assert_corrupt(&kept_too_short);
    form["state"]["active"]["refresh"]["until"] = json!(stored_at(3000));
    assert_corrupt(&form);
}

/// If the session were purged when it expires, a poll could not be answered with `expired_token`.
#[test]
fn a_session_is_kept_past_its_expiry() {
    let mut form = Login::new().form();
    form["purge_at"] = form["expires_at"].clone();
    assert_corrupt(&form);
}

#[test]
fn a_moment_beyond_the_calendar_is_told_as_its_nearer_end() {
    let mut form = Login::new().form();
    form["issued_at"] = json!(i64::MIN);
    form["expires_at"] = json!(i64::MIN + 1);
    let session = read(&form).unwrap();
    assert_eq!(
        session.expires_at(),
        time::Date::MIN.midnight().assume_utc()
    );
    form = Login::new().form();
    form["purge_at"] = json!(i64::MAX);
    let session = read(&form).unwrap();
    assert_eq!(session.purge_at(), time::Date::MAX.midnight().assume_utc());
}

#[test]
fn no_form_panics() {
    let whole = approved().to_string();
    for end in 0..whole.len() {
        assert!(serde_json::from_str::<Session>(&whole[..end]).is_err());
    }
    for value in ["null", "1", "[]", "{}", "\"\"", "[[[[", "{\"v\":2}"] {
        assert!(serde_json::from_str::<Session>(value).is_err());
        assert!(serde_json::from_str::<Pace>(value).is_err());
    }
    for moment in [i64::MIN, i64::MAX] {
        let mut form = approved();
        form["issued_at"] = json!(i64::MIN);
        form["expires_at"] = json!(moment);
        form["purge_at"] = json!(i64::MAX);
        if let Ok(session) = read(&form) {
            let _ = (
                session.issued_at(),
                session.expires_at(),
                session.purge_at(),
            );
        }
    }
}

// The pace.

#[test]
fn a_pace_has_this_form_and_is_read_as_it_was_written() {
    for (interval, widened) in [(5, false), (10, true), (60, false)] {
        let pace = pace_of(1234, interval, widened);
        let form =
            json!({ "v": 2, "last": stored_at(1234), "interval": interval, "widened": widened });
        assert_eq!(serde_json::to_value(pace).unwrap(), form);
        assert_eq!(
            serde_json::from_str::<Pace>(&form.to_string()).unwrap(),
            pace
        );
        assert_eq!(pace.interval().as_secs(), u64::from(interval));
    }
    // A poll saves a pace in this form.
    let mut login = Login::new();
    let _ = login.poll(1234);
    assert_eq!(login.pace(), Some(pace_of(1234, 5, false)));
}

#[test]
fn a_pace_that_is_not_known_is_refused() {
    let form = json!({ "v": 2, "last": stored_at(0), "interval": 5, "widened": false });
    assert!(serde_json::from_value::<Pace>(form.clone()).is_ok());
    let cases = [
        ("v", json!(0)),
        ("v", json!(1)),
        ("v", json!(3)),
        ("interval", json!(0)),
        ("interval", json!(-5)),
        ("interval", json!("5")),
        ("interval", json!(1_i64 << 32)),
        ("last", json!(1.5)),
        ("last", json!("now")),
        ("widened", json!(0)),
        ("more", json!(0)),
    ];
    for (member, value) in cases {
        let mut form = form.clone();
        form[member] = value;
        assert!(
            serde_json::from_value::<Pace>(form.clone()).is_err(),
            "{form}"
        );
    }
    for member in ["v", "last", "interval", "widened"] {
        let mut form = form.clone();
        form.as_object_mut().unwrap().remove(member);
        assert!(serde_json::from_value::<Pace>(form).is_err(), "{member}");
    }
    let mut unknown = form.clone();
    unknown["v"] = json!(1);
    let error = serde_json::from_value::<Pace>(unknown)
        .unwrap_err()
        .to_string();
    assert_eq!(error, VERSION);
    let mut corrupt = form;
    corrupt["interval"] = json!(0);
    let error = serde_json::from_value::<Pace>(corrupt)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the interval of a pace must not be zero");
}
