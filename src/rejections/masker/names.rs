//! Names of secrets.

use super::values::PlainValue;

/// Parts of names of secrets, in lower case and without `_`, `-`, `.` and blanks.
const PARTS: &[&str] = &[
    "password",
    "passwort",
    "passwd",
    "passphrase",
    "passcode",
    "passkey",
    "pwd",
    "secret",
    "token",
    "credential",
    "authoriz",
    "authoris",
    "bearer",
    "apikey",
    "authkey",
    "accesskey",
    "privatekey",
    "privkey",
    "sharedkey",
    "writekey",
    "readkey",
    "appkey",
    "appskey",
    "nwkkey",
    "nwkskey",
    "licensekey",
    "licencekey",
    "dbpass",
    "userpass",
    "wifipass",
    "wlanpass",
    "mqttpass",
    "accesscode",
    "sessionid",
];
/// Whole words in names of secrets, in lower case.
const WORDS: &[&str] = &[
    "pass",
    "pw",
    "key",
    "keys",
    "auth",
    "oauth",
    "cred",
    "creds",
    "jwt",
    "psk",
    "cookie",
    "csrf",
    "hmac",
    "otp",
    "signature",
    "sig",
    "xauth",
];
/// Endings that turn a part into an ordinary word: `secretary`, `tokenizer`.
const ORDINARY: &[(&str, &[&str])] = &[("secret", &["ary", "ariat"]), ("token", &["izer", "ization"])];
/// A part that often comes from the end of one word and the beginning of the next: `temp_wd`.
const ACROSS_WORDS: &str = "pwd";
/// Words of names of secrets that are also short for something measured: signal, power.
const SHORT_FOR_MEASURED: &[&str] = &["sig", "pw", "pass", "key", "keys"];
/// Last words of names of counts and measurements.
const MEASURES: &[&str] = &[
    "age", "bytes", "count", "counts", "errors", "expires", "expiry", "index", "len", "length", "limit",
    "ms", "rate", "requests", "seconds", "size", "total", "ttl", "usage", "used",
];
/// First words of names of counts, before a plural.
const NUMBERS_OF: &[&str] = &["max", "min", "num", "n", "total"];
/// The beginning of `Idempotency-Key`, a header that is not a secret.
const PUBLIC: &str = "idempotency";

/// Whether a field with this name holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let joined: String = lower.chars().filter(|letter| letter.is_alphanumeric()).collect();
    !joined.starts_with(PUBLIC)
        && (PARTS.iter().any(|part| has_part(name, &joined, part))
            || words(name).any(|word| WORDS.contains(&word.as_str())))
}

/// Whether a part stands in a name outside of ordinary words.
fn has_part(name: &str, joined: &str, part: &str) -> bool {
    let ordinary = ORDINARY.iter().find(|(of, _)| *of == part).map_or(&[][..], |(_, ends)| ends);
    let mut places = joined.match_indices(part).map(|(at, _)| at + part.len());
    let is_found = places.any(|end| !ordinary.iter().any(|rest| joined[end..].starts_with(rest)));
    is_found && (part != ACROSS_WORDS || joined == part || words_apart(name).any(|word| word.contains(part)))
}

/// Whether a plain value under a name of a secret can be shown: a keyword, a count, or a number with a sign or a fraction
/// under a name that is also short for something measured.
pub(super) fn is_plain(name: &str, value: PlainValue) -> bool {
    let camel: Vec<String> = words_apart(name).collect();
    let last = camel.last().map_or("", String::as_str);
    let is_plural = last.ends_with('s') && !last.ends_with("ss");
    let is_number_of = is_plural && camel.first().is_some_and(|word| NUMBERS_OF.contains(&word.as_str()));
    let is_measured = is_number_of || MEASURES.contains(&last);
    let joined: String = camel.concat();
    let is_short = !PARTS.iter().any(|part| joined.contains(part))
        && camel
            .iter()
            .all(|word| !WORDS.contains(&word.as_str()) || SHORT_FOR_MEASURED.contains(&word.as_str()));
    match value {
        PlainValue::Word => true,
        PlainValue::Whole => is_measured,
        PlainValue::Fraction => is_measured || is_short,
    }
}

/// Whether a query parameter is a user or a password, by the names that stores use.
pub(super) fn is_secret_in_query(name: &str) -> bool {
    matches!(name, "p" | "u" | "P" | "U")
}

/// The words of a name in lower case, split at non-letters, then also split at capitals: `privateKey2` gives
/// `privatekey`, `private` and `key`.
fn words(name: &str) -> impl Iterator<Item = String> {
    let parts = name.split(|letter: char| !letter.is_alphabetic());
    parts.map(str::to_lowercase).chain(words_apart(name))
}

/// The words of a name in lower case, split at non-letters and capitals, in their order.
fn words_apart(name: &str) -> impl Iterator<Item = String> {
    let parts = name.split(|letter: char| !letter.is_alphabetic()).filter(|part| !part.is_empty());
    parts.flat_map(|part| {
        let mut words = Vec::new();
        let mut was_lower = false;
        let mut word = String::new();
        for letter in part.chars() {
            if letter.is_uppercase() && was_lower {
                words.push(std::mem::take(&mut word));
            }
            was_lower = letter.is_lowercase();
            word.extend(letter.to_lowercase());
        }
        words.push(word);
        words
    })
}
