//! Which names speak of a secret.

/// What names of secrets have in them, in lower case and without `_`, `-`, `.` and blanks.
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
    "sharedkey",
];
/// Words that names of secrets have in them as a whole, in lower case.
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
    "signature",
    "sig",
];
/// The name of a header that is no secret.
const PUBLIC: &str = "idempotency";

/// Whether the value of what has this name is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let joined: String = lower.chars().filter(|letter| letter.is_alphanumeric()).collect();
    !joined.starts_with(PUBLIC)
        && (PARTS.iter().any(|part| joined.contains(part))
            || words(name).any(|word| WORDS.contains(&word.as_str())))
}

/// Whether a parameter of a query is a user or a password, as the stores name them.
pub(super) fn is_secret_in_query(name: &str) -> bool {
    matches!(name, "p" | "u" | "P" | "U")
}

/// The words of a name, in lower case: `privateKey2` has two.
fn words(name: &str) -> impl Iterator<Item = String> {
    let parts = name.split(|letter: char| !letter.is_alphabetic());
    parts.flat_map(|part| {
        let mut words = vec![part.to_lowercase()];
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
