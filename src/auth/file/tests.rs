use forebay_reading::clock::wall_time;

use super::*;
use crate::auth::Presented;
use crate::auth::presented::InQuery;
use http::{HeaderMap, HeaderValue};

fn hash(key: &str) -> String {
    KeyHash::of(key.as_bytes()).to_string()
}

#[track_caller]
fn faults(content: &str) -> String {
    let faults = parse(content.as_bytes()).expect_err("it must be refused");
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Whose the key is, at present.
fn whose(keyring: &Keyring, key: &str) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(key).expect("a value"));
    let presented = Presented::read(&headers, None, InQuery::Ignored);
    keyring.find(presented, [], wall_time()).ok().map(|position| keyring.keys()[position].name.to_string())
}

#[test]
fn a_file_with_every_field_is_read() {
    let file = format!(
        r#"
# The plant in the north.
[[key]]
name = "plant-7"
hashes = ["{}", {{ hash = "{}", until = "2199-01-01T00:00:00Z" }}, {{ hash = "{}", until = 2001-01-01T00:00:00Z }}]
role = "write"
devices = ["plant-7/*"]
sensors = ["*"]
default_device = "plant-7/unknown"
tags = {{ site = "plant-7" }}
certificate = "plant-7.example"
rate = "200/s"
burst = 1000
catch_up = "50/s"
first = false
not_before = "2020-01-01T00:00:00Z"
not_after = "9999-01-01T00:00:00+02:00"

[[key]]
name = "operator"
role = "read"
hashes = ["{}"]
"#,
        hash("new"),
        hash("old"),
        hash("gone"),
        hash("op")
    );
    let keyring = parse(file.as_bytes()).expect("a good file");
    assert_eq!(whose(&keyring, "new").as_deref(), Some("plant-7"));
    assert_eq!(whose(&keyring, "old").as_deref(), Some("plant-7"), "one hash is replaced by another");
    assert_eq!(whose(&keyring, "gone"), None, "the time of this hash is over");
    assert_eq!(whose(&keyring, "op").as_deref(), Some("operator"));
    assert_eq!(whose(&keyring, "other"), None);
    let [plant, operator] = keyring.keys() else { panic!("two keys") };
    assert_eq!((plant.role, operator.role), (Role::Write, Role::Read));
    assert!(plant.grant.is_some() && operator.grant.is_none());
}

#[test]
fn a_file_without_keys_is_good_and_knows_nobody() {
    assert!(parse(b"").expect("no keys").keys().is_empty());
    assert!(parse(b"# none yet\n").expect("no keys").keys().is_empty());
}

#[test]
fn every_fault_is_told_with_its_line_and_its_key() {
    let good = hash("a");
    let file = format!(
        r#"[[key]]
name = "a"
hashes = ["fb_secretsecret"]
role = "admin"
[[key]]
name = "b"
[[key]]
name = "c d"
hashes = ["{good}"]
devices = []
rate = "fast"
burst = 0
[[key]]
name = "a"
hashes = ["{good}"]
[[key]]
name = "e"
hashes = ["{good}"]
default_device = "x"
devices = ["plant-7/*"]
[[key]]
name = "f"
hashes = [{{ hash = "{good}", until = "tomorrow" }}]
not_before = "2027-01-01T00:00:00Z"
not_after = "2026-01-01T00:00:00Z"
"#
    );
    let told = faults(&file);
    let lines: Vec<_> = told.lines().collect();
    let begins = [
        "line 1: key `a`: `role`: `admin` is no role; known: write, read",
        "line 1: key `a`: `hashes`: `fb_secre…` is not a hash; allowed: `sha256:` and 64",
        "line 5: key `b`: it has neither `hashes` nor `certificate`",
        "line 7: key `c d`: a name must have 1 to 64 bytes without blanks",
        "line 7: key `c d`: `rate`: must be a whole number from 1 on and a unit (s, m, h, d), such as 200/s, got `fast`",
        "line 7: key `c d`: `devices`: must have 1 to 256 globs, got 0",
        "line 13: key `a`: there is another key of this name",
        "line 16: key `e`: `default_device` is `x`, which none of the globs in `devices` matches",
        "line 21: key `f`: `not_after` must not be before `not_before`",
        "line 21: key `f`: `until`: ",
    ];
    assert_eq!(lines.len(), begins.len(), "{told}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}\n{begin}");
    }
    assert!(!told.contains("secretsecret"), "what may be a key is not repeated: {told}");
}

#[test]
fn no_key_has_the_name_by_which_metrics_count_all_further_keys() {
    let key = |name: &str| format!("[[key]]\nname = \"{name}\"\nhashes = [\"{}\"]\n", hash("a"));
    assert_eq!(
        faults(&key("other")),
        "line 1: key `other`: a name must not be `other`, as which metrics count all keys beyond the first 1000"
    );
    assert!(parse(key("others").as_bytes()).is_ok());
}

#[test]
fn two_keys_never_share_a_hash_or_a_certificate() {
    let key = |name: &str, rest: &str| format!("[[key]]\nname = \"{name}\"\n{rest}\n");
    let hashes = format!("hashes = [\"{}\"]", hash("a"));
    let told = faults(&(key("a", &hashes) + &key("b", &hashes)));
    assert_eq!(
        told,
        "line 4: key `b`: one of its hashes is there before, at the key `a`; each key needs its own"
    );
    let certificate = "certificate = \"x.example\"";
    let told = faults(&(key("a", certificate) + &key("b", certificate)));
    assert_eq!(
        told,
        "line 4: key `b`: its `certificate` is that of the key `a`, too; each key needs its own"
    );
    let twice = format!("hashes = [\"{0}\", \"{0}\"]", hash("a"));
    assert!(faults(&key("a", &twice)).contains("one of its hashes is there before"), "{twice}");
}

#[test]
fn a_key_whose_hash_and_certificate_are_another_ones_is_a_fault_and_no_panic() {
    let (h, g) = (hash("h"), hash("g"));
    let file = format!(
        "[[key]]\nname = \"a\"\nhashes = [\"{h}\"]\n[[key]]\nname = \"b\"\nhashes = [\"{h}\"]\ncertificate = \"x\"\n[[key]]\nname = \"c\"\nhashes = [\"{g}\"]\ncertificate = \"x\"\n"
    );
    assert_eq!(faults(&file).lines().count(), 2, "{}", faults(&file));
}

#[test]
fn a_mistyped_end_is_a_fault_and_a_far_one_means_never() {
    let until =
        |time: &str| format!("[[key]]\nname = \"a\"\nhashes = [\"{}\"]\nnot_after = \"{time}\"\n", hash("a"));
    for time in ["2O27-01-01T00:00:00Z", "abcd-01-01T00:00:00Z", "9999-13-01T00:00:00Z"] {
        assert!(parse(until(time).as_bytes()).is_err(), "{time}");
    }
    assert!(parse(until("9999-12-31T00:00:00Z").as_bytes()).is_ok());
}

#[test]
fn a_file_that_is_not_toml_or_has_another_field_or_type_is_told_with_its_line() {
    assert!(faults("[[key]]\nname = ").starts_with("line 2: "));
    assert!(faults("[[key]]\nname = \"a\"\nhash = \"x\"\n").starts_with("line 3: unknown field `hash`"));
    assert!(faults("[[keys]]\nname = \"a\"\n").starts_with("line 1: unknown field `keys`"));
    assert!(faults("[[key]]\nname = 7\n").starts_with("line 2: invalid type"));
    let told = faults("[[key]]\nname = \"a\"\nhashes = [7]\n");
    assert_eq!(told, "line 3: a hash must be `\"sha256:…\"`, or a table with `hash` and `until`");
    let told = faults("[[key]]\nname = \"a\"\nhashes = \"fb_secretsecretsecret\"\n");
    assert!(told.contains("fb_secre…") && !told.contains("secretsecret"), "{told}");
    let bytes = parse(b"[[key]]\n\xff").expect_err("not UTF-8");
    assert_eq!(bytes[0].to_string(), "line 2: the file is not UTF-8");
}

#[test]
fn rates_have_a_number_and_a_unit() {
    let second = Duration::from_secs(1);
    assert_eq!(parse_rate("200/s"), Ok(Rate { count: 200, per: second }));
    assert_eq!(parse_rate("1 / h"), Ok(Rate { count: 1, per: 3600 * second }));
    for text in ["", "200", "0/s", "-1/s", "1.5/s", "1/w", "/s"] {
        assert!(parse_rate(text).is_err(), "{text}");
    }
}
