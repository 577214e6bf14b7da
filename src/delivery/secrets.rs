//! What must never be shown or kept of the settings: the one masker through which every text of a node goes.
//!
//! A node may repeat what it was sent: the address with its password, the headers with their tokens. Before a text of a node
//! is shown, logged or written down, and before it is cut, each secret in it becomes `***`. Secrets are:
//!
//! - the password of a node's address, and a user name without one; the values of parameters whose names sound secret, or
//!   that look drawn by chance;
//! - the values of `cluster.headers`, what follows in them after the name of a scheme (`Bearer …`), the values of cookies, and
//!   what Base64 hides in them.
//!
//! They are found as they are, percent-encoded, with JSON's or HTML's escapes, twice encoded, in hexadecimal, and within
//! Base64 of whatever holds them; a beginning that the text was cut in, too. Case is not looked at.
//!
//! Limits: what is read of settings is bounded by them; a text is read once for each secret and each of a few views of it
//! (`views.rs`), so that the time grows with its length alone.

mod views;

use std::borrow::Cow;
use std::ops::Range;

use http::HeaderMap;
use memchr::memmem;
use url::{Url, form_urlencoded};

use views::{TextView, base64_decoded, base64_parts};

/// Shortest text that is hidden for being the value of a header, in bytes: shorter ones are parts of ordinary words.
const SECRET_BYTES_MIN: usize = 6;
/// The same for passwords and parameters, which are nothing but secrets.
const PASSWORD_BYTES_MIN: usize = 4;
/// Shortest beginning of a secret that is hidden at the end of a text that nobody cut here: a node may have cut it.
const BEGINNING_BYTES_MIN: usize = 6;
/// Shortest beginning of Base64 that is hidden at the end of a text that was cut: shorter ones are ends of any word.
const BASE64_CHARS_MIN: usize = 4;
/// Shortest value of a parameter that is taken to be drawn by chance if it has letters and digits.
const RANDOM_BYTES_MIN: usize = 16;
/// What stands for a secret: a header may hold it.
const HIDDEN: &str = "***";
/// Words before credentials, in headers. What follows them is hidden whatever it is, if it is long enough.
const SCHEMES: [&str; 4] = ["Basic ", "Bearer ", "ApiKey ", "Token "];
/// What the names of secret parameters of an address have in them.
const SECRET_PARAMETERS: [&str; 11] =
    ["pass", "pwd", "token", "secret", "key", "auth", "sig", "cred", "jwt", "session", "sas"];
/// Whole names of secret parameters.
const SECRET_NAMES: [&str; 4] = ["p", "pw", "code", "sid"];
/// Parameters that name places and settings, as the documents of the stores show them.
const PUBLIC_NAMES: [&str; 12] = [
    "db",
    "rp",
    "org",
    "orgid",
    "bucket",
    "precision",
    "consistency",
    "database",
    "table",
    "query",
    "u",
    "user",
];

/// Whether a text ends where its author ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It does.
    Whole,
    /// It was cut: its end may be the beginning of a secret.
    Cut,
}

/// The secrets of the settings.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// As they are looked for in folded text: in lower case, with blanks for plus signs.
    folded: Vec<Vec<u8>>,
    /// As they stand within Base64.
    in_base64: Vec<Vec<u8>>,
}

impl Secrets {
    /// The secrets of these addresses and headers.
    pub fn of<'a>(urls: impl Iterator<Item = &'a Url>, headers: &HeaderMap) -> Secrets {
        let mut plain = PlainSecrets::default();
        urls.for_each(|url| plain.add_url(url));
        for (name, value) in headers {
            plain.add_header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
        plain.into_secrets()
    }

    /// The text with `***` for each secret.
    pub fn hide<'a>(&self, text: &'a str, extent: Extent) -> Cow<'a, str> {
        if self.folded.is_empty() && !SCHEMES.iter().any(|scheme| text.contains(scheme)) {
            return Cow::Borrowed(text);
        }
        let mut found = Vec::new();
        for view in views::of(text) {
            self.find(&view, extent, &mut found);
        }
        find_credentials(text, &mut found);
        replace(text, found)
    }

    /// Notes where in the text secrets are in one view of it.
    fn find(&self, view: &TextView<'_>, extent: Extent, found: &mut Vec<Range<usize>>) {
        let folded = view.folded();
        for secret in &self.folded {
            let places = memmem::find_iter(&folded, secret).map(|at| at..at + secret.len());
            found.extend(
                places.chain(beginning(&folded, secret, least_of(extent, 1))).map(|place| view.place(place)),
            );
        }
        let base64 = view.base64();
        for secret in &self.in_base64 {
            let places = memmem::find_iter(&base64, secret).map(|at| at..at + secret.len());
            for place in places.chain(beginning(&base64, secret, least_of(extent, BASE64_CHARS_MIN))) {
                // Its neighbours have bits of it.
                found.push(view.place(views::base64_run(&base64, place)));
            }
        }
    }
}

/// Fewest bytes of a secret's beginning that are hidden at the end of a text: `cut` if the text was cut.
fn least_of(extent: Extent, cut: usize) -> usize {
    match extent {
        Extent::Whole => BEGINNING_BYTES_MIN,
        Extent::Cut => cut,
    }
}

/// The end of a text, if it is the beginning of a secret, of `least` bytes or more.
fn beginning(text: &[u8], secret: &[u8], least: usize) -> Option<Range<usize>> {
    let from = text.len().saturating_sub(secret.len() - 1);
    let mut starts = memchr::memchr_iter(*secret.first()?, &text[from..]).map(|at| from + at);
    let start = starts.find(|start| secret.starts_with(&text[*start..]))?;
    (text.len() - start >= least).then_some(start..text.len())
}

/// Notes what follows the names of schemes: a node may have made it of the address.
fn find_credentials(text: &str, found: &mut Vec<Range<usize>>) {
    for scheme in SCHEMES {
        for (at, _) in text.match_indices(scheme) {
            let start = at + scheme.len();
            let rest = &text[start..];
            let end = start + rest.find([' ', '"', ',', '\n']).unwrap_or(rest.len());
            // `Basic authentication` is no secret.
            let is_word = text[start..end].bytes().all(|byte| byte.is_ascii_lowercase());
            if end - start >= 2 * PASSWORD_BYTES_MIN && !is_word {
                found.push(start..end);
            }
        }
    }
}

/// Puts what stands for a secret in the place of each.
fn replace(text: &str, mut found: Vec<Range<usize>>) -> Cow<'_, str> {
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable_by_key(|place| (place.start, place.end));
    let (mut hidden, mut done) = (String::with_capacity(text.len()), 0);
    let mut places = found.into_iter().peekable();
    while let Some(mut place) = places.next() {
        while let Some(next) = places.next_if(|next| next.start <= place.end) {
            place.end = place.end.max(next.end);
        }
        hidden.push_str(&text[done..text.floor_char_boundary(place.start).max(done)]);
        hidden.push_str(HIDDEN);
        done = text.ceil_char_boundary(place.end);
    }
    hidden.push_str(&text[done..]);
    Cow::Owned(hidden)
}

/// Secrets as they are.
#[derive(Debug, Default)]
struct PlainSecrets(Vec<String>);

impl PlainSecrets {
    /// Adds a secret, with what is in it: the password after a colon, what Base64 hides.
    fn add(&mut self, secret: &str, bytes_min: usize) {
        if secret.len() < bytes_min || self.0.iter().any(|known| known == secret) {
            return;
        }
        self.0.push(secret.to_owned());
        if let Some((_, password)) = secret.split_once(':') {
            self.add(password.trim_start(), bytes_min);
        }
        if let Some(inside) = base64_decoded(secret) {
            self.add(&inside, bytes_min);
        }
    }

    fn add_url(&mut self, url: &Url) {
        let (user, password) = (percent_decoded(url.username()), url.password().map(percent_decoded));
        match password {
            Some(password) => {
                self.add(&format!("{user}:{password}"), PASSWORD_BYTES_MIN + 1);
                self.add(&password, PASSWORD_BYTES_MIN);
            }
            // It is a token then.
            None => self.add(&user, SECRET_BYTES_MIN),
        }
        for (_, value) in url.query_pairs().filter(|(name, value)| is_secret(name, value)) {
            self.add(&value, PASSWORD_BYTES_MIN);
        }
    }

    fn add_header(&mut self, name: &str, value: &str) {
        self.add(value, SECRET_BYTES_MIN);
        if let Some((_, credentials)) = value.split_once(' ') {
            self.add(credentials.trim(), SECRET_BYTES_MIN);
        }
        let has_pairs = ["cookie", "auth"].iter().any(|word| name.contains(word));
        for pair in value.split([';', ',']).filter(|_| has_pairs) {
            if let Some((_, value)) = pair.split_once('=') {
                self.add(value.trim().trim_matches('"'), SECRET_BYTES_MIN);
            }
        }
    }

    fn into_secrets(self) -> Secrets {
        let mut secrets = Secrets::default();
        for secret in self.0 {
            secrets.folded.push(views::folded(secret.as_bytes()));
            if secret.len() >= SECRET_BYTES_MIN {
                secrets
                    .folded
                    .push(secret.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
                secrets.in_base64.extend(base64_parts(secret.as_bytes()));
            }
        }
        secrets
    }
}

/// Whether a parameter of an address is a secret.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if PUBLIC_NAMES.contains(&name.as_str()) {
        return false;
    }
    let has = |is_it: fn(&u8) -> bool| value.as_bytes().iter().any(is_it);
    let is_random = value.len() >= RANDOM_BYTES_MIN
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && !value.contains(' ');
    is_random
        || SECRET_NAMES.contains(&name.as_str())
        || SECRET_PARAMETERS.iter().any(|part| name.contains(part))
}

/// What a part of an address stands for.
fn percent_decoded(text: &str) -> String {
    // There, a plus sign stands for itself.
    let pair = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests;
