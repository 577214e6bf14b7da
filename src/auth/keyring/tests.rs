use std::time::Duration;

use forebay_reading::timestamp::Timestamp;
use http::{HeaderMap, HeaderValue};

use super::*;
use crate::auth::Role;
use crate::auth::presented::InQuery;

fn key(name: &str, validity: HoldPeriod) -> Key {
    Key { name: name.into(), role: Role::Write, grant: None, validity }
}

fn presented(key: &str) -> Result<Option<Presented>, PresentedError> {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(key).expect("a value"));
    Presented::read(&headers, None, InQuery::Ignored)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn moment(seconds: u64) -> Option<Timestamp> {
    Some(Timestamp::from_system(at(seconds)))
}

/// Two keys: `a` with a hash, and `b` with a hash and a certificate.
fn keyring() -> Keyring {
    let mut keyring = Keyring::default();
    let hash = |key: &str| [(KeyHash::of(key.as_bytes()), HoldPeriod::default())];
    keyring.add(key("a", HoldPeriod::default()), &hash("key of a"), None).expect("the first");
    keyring
        .add(key("b", HoldPeriod::default()), &hash("key of b"), Some("b.example".to_owned()))
        .expect("another");
    keyring
}

#[test]
fn a_key_is_found_by_what_is_presented_or_by_a_name_in_the_certificate() {
    let keyring = keyring();
    let find = |given, names: &[&str]| {
        keyring
            .find(given, names.iter().copied(), at(1))
            .map(|position| keyring.keys()[position].name.to_string())
    };
    let found = |name: &str| Ok(name.to_owned());
    assert_eq!(find(presented("key of a"), &[]), found("a"));
    assert_eq!(find(presented("key of b"), &["b.example"]), found("b"));
    assert_eq!(find(Ok(None), &["other.example", "b.example"]), found("b"));
    assert_eq!(find(presented("key of a"), &["other.example"]), found("a"), "a certificate that is no key");
    assert_eq!(find(Ok(None), &[]), Err(CallerError::NoKey));
    assert_eq!(find(Ok(None), &["B.example"]), Err(CallerError::NoKey), "names are compared exactly");
    assert_eq!(find(presented("key of c"), &[]), Err(CallerError::UnknownKey));
    assert_eq!(find(presented("key of a"), &["b.example"]), Err(CallerError::CertificateOfAnother));
    assert_eq!(find(presented("key of c"), &["b.example"]), Err(CallerError::UnknownKey));
    let several = CallerError::Presented(PresentedError::Several);
    assert_eq!(find(Err(PresentedError::Several), &[]), Err(several));
}

#[test]
fn a_certificate_that_names_two_keys_is_neither() {
    let mut keyring = keyring();
    keyring.add(key("c", HoldPeriod::default()), &[], Some("c.example".to_owned())).expect("a third");
    let found = keyring.find(Ok(None), ["b.example", "c.example"], at(1));
    assert_eq!(
        found.map(|position| keyring.keys()[position].name.to_string()),
        Err(CallerError::SeveralByCertificate)
    );
    let found = keyring.find(Ok(None), ["b.example", "b.example"], at(1));
    assert_eq!(found.map(|position| keyring.keys()[position].name.to_string()), Ok("b".to_owned()));
}

#[test]
fn a_key_and_each_of_its_hashes_hold_for_their_time_alone() {
    let mut keyring = Keyring::default();
    let validity = HoldPeriod { not_before: moment(10), not_after: moment(20) };
    let until = HoldPeriod { not_before: None, not_after: moment(15) };
    let hashes = [(KeyHash::of(b"new"), HoldPeriod::default()), (KeyHash::of(b"old"), until)];
    keyring.add(key("a", validity), &hashes, Some("a.example".to_owned())).expect("the first");
    let check = |given, names: &[&str], second, expected: bool| {
        let found = keyring.find(given, names.iter().copied(), at(second));
        let expected = if expected { Ok("a".to_owned()) } else { Err(CallerError::NotNow) };
        assert_eq!(found.map(|position| keyring.keys()[position].name.to_string()), expected, "{second}");
    };
    for (second, is_valid) in [(9, false), (10, true), (20, true), (21, false)] {
        check(presented("new"), &[], second, is_valid);
        check(Ok(None), &["a.example"], second, is_valid);
    }
    check(presented("old"), &[], 15, true);
    check(presented("old"), &[], 16, false);
}
