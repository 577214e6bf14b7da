use std::time::Duration;

use super::*;
use crate::auth;

const FILE: &str = r#"# Keys of the plants.

# The north.
[[key]]
name = "north"   # since 2026
hashes = ["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]

[[key]]
name = "south"
certificate = "south.example"
"#;

fn new_key<'a>(name: &'a str, devices: &'a [String]) -> NewKey<'a> {
    NewKey {
        name,
        hash: KeyHash::of(b"new"),
        role: Role::Read,
        devices,
        sensors: &[],
        rate: Some("200/s"),
        burst: Some(1000),
    }
}

#[test]
fn a_key_is_added_at_the_end_and_all_else_stays() {
    let mut document = Document::read(FILE).expect("TOML");
    document.append(&new_key("east", &["east/*".to_owned()]).entry()).expect("it can follow");
    let entry = format!(
        "\n[[key]]\nname = \"east\"\nhashes = [\"{}\"]\nrole = \"read\"\ndevices = [\"east/*\"]\nrate = \"200/s\"\nburst = 1000\n",
        KeyHash::of(b"new")
    );
    assert_eq!(document.to_string(), format!("{FILE}{entry}"));
    assert_eq!(auth::parse(document.to_string().as_bytes()).expect("a good file").keys().len(), 3);
    let mut empty = Document::read("").expect("TOML");
    empty.append(&new_key("east", &[]).entry()).expect("it can follow");
    let mut inline = Document::read("key = []\n").expect("TOML");
    assert!(inline.append(&new_key("east", &[]).entry()).is_err());
    assert!(empty.to_string().starts_with("[[key]]\nname = \"east\"\n"), "{empty}");
}

#[test]
fn a_name_or_glob_with_quotes_is_written_so_that_it_is_read_back() {
    let globs = ["a\"b\\*".to_owned()];
    let entry = new_key("it's\"a\"name", &globs).entry();
    let keyring = auth::parse(entry.as_bytes()).expect("a good entry");
    assert_eq!(&*keyring.keys()[0].name, "it's\"a\"name");
}

#[test]
fn a_rotated_key_keeps_its_old_hash_for_a_while_and_its_comments() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let until = |hours: u64| Timestamp::from_system(now + Duration::from_secs(3600 * hours));
    let mut document = Document::read(FILE).expect("TOML");
    document.rotate("north", KeyHash::of(b"second"), until(24), now).expect("the key is there");
    let text = document.to_string();
    let expected = format!(
        "hashes = [\"{}\", {{ hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\", until = \"2027-01-16T08:00:00Z\" }}]",
        KeyHash::of(b"second")
    );
    assert!(text.contains(&expected), "{text}");
    assert!(text.starts_with("# Keys of the plants.\n\n# The north.\n"), "{text}");
    assert!(text.contains("# since 2026"), "{text}");
    // An hour later the first hash still ends when it was to; a day later it is gone.
    let later = |hours: u64| now + Duration::from_secs(3600 * hours);
    document.rotate("north", KeyHash::of(b"third"), until(25), later(1)).expect("the key is there");
    assert_eq!(document.to_string().matches("2027-01-16T08:00:00Z").count(), 1, "{document}");
    document.rotate("north", KeyHash::of(b"fourth"), until(72), later(48)).expect("the key is there");
    let text = document.to_string();
    assert_eq!(text.matches("sha256:").count(), 2, "those whose time is over are gone: {text}");
    let told = document.rotate("west", KeyHash::of(b"x"), until(1), now).expect_err("no such key");
    assert_eq!(told, "there is no key `west`; `forebay keys list` shows those that there are");
}

#[test]
fn a_revoked_key_is_gone_and_the_others_stay() {
    let mut document = Document::read(FILE).expect("TOML");
    document.revoke("north").expect("the key is there");
    let text = document.to_string();
    assert!(!text.contains("north") && text.contains("south.example"), "{text}");
    assert!(document.revoke("north").is_err());
    document.revoke("south").expect("the key is there");
    assert!(auth::parse(document.to_string().as_bytes()).expect("a good file").keys().is_empty());
}
