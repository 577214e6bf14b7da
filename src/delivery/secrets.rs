//! Hides the secrets of the settings in every text of a node.
//!
//! A node may repeat a request: the address with its password, the headers with their tokens. Before a text of a node is
//! shown, logged, stored or cut, each secret in it becomes `***`. Secrets are:
//!
//! - the password of a node's address, or its user name if there is no password; the values of query parameters with
//!   suspicious names, or with values that look random;
//! - the values of `cluster.headers`, the credentials after a scheme in them (`Bearer …`), the values of cookies, and the
//!   text decoded from Base64 values.
//!
//! A secret is found in plain text, percent-encoded, with the escapes of JSON or HTML, encoded twice, in hexadecimal, and
//! within Base64 of a longer text; also its first part, at the end of a cut text. Upper and lower case are the same.
//!
//! Limits: the number of secrets is bounded by the settings. A text is searched once for each secret in each of a few views
//! (`views.rs`), so the time grows only with its length.

mod views;

use std::borrow::Cow;
use std::ops::Range;

use http::HeaderMap;
use memchr::memmem;
use url::{Url, form_urlencoded};

use views::{TextView, base64_decoded, base64_parts};

/// Shortest header value that is hidden, in bytes: shorter ones occur within ordinary words.
const SECRET_BYTES_MIN: usize = 6;
/// Shortest password or parameter that is hidden, in bytes: less than for headers, which need not be secrets.
const PASSWORD_BYTES_MIN: usize = 4;
/// Shortest prefix of a secret that is hidden at the end of a text that was not cut here: the node may have cut it.
const PREFIX_BYTES_MIN: usize = 6;
/// Shortest prefix of Base64 that is hidden at the end of a cut text: shorter ones match the end of any word.
const BASE64_CHARS_MIN: usize = 4;
/// Shortest parameter value with letters and digits that counts as random, in bytes.
const RANDOM_BYTES_MIN: usize = 16;
/// Replacement for a secret; valid in a header too.
const HIDDEN: &str = "***";
/// Authentication schemes in headers. Any credentials after them are hidden if they are long enough.
const SCHEMES: [&str; 4] = ["Basic ", "Bearer ", "ApiKey ", "Token "];
/// Parts of the names of secret query parameters.
const SECRET_PARAMETERS: [&str; 11] =
    ["pass", "pwd", "token", "secret", "key", "auth", "sig", "cred", "jwt", "session", "sas"];
/// Whole names of secret query parameters.
const SECRET_NAMES: [&str; 4] = ["p", "pw", "code", "sid"];
/// Query parameters that are public, as the stores' documentation shows them.
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

/// Whether a text is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The text is complete.
    Whole,
    /// The text was cut: it may end within a secret.
    Cut,
}

/// The secrets of the settings.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The secrets as they are compared with folded text: in lower case, with spaces for plus signs.
    folded: Vec<Vec<u8>>,
    /// The secrets as they appear within Base64.
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

    /// Replaces each secret in the text by `***`.
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

    /// Finds the secrets in one view, and adds their places in the text to `found`.
    fn find(&self, view: &TextView<'_>, extent: Extent, found: &mut Vec<Range<usize>>) {
        let folded = view.folded();
        for secret in &self.folded {
            let places = memmem::find_iter(&folded, secret).map(|at| at..at + secret.len());
            found.extend(
                places
                    .chain(cut_secret(&folded, secret, prefix_min(extent, 1)))
                    .map(|place| view.place(place)),
            );
        }
        let base64 = view.base64();
        for secret in &self.in_base64 {
            let places = memmem::find_iter(&base64, secret).map(|at| at..at + secret.len());
            for place in places.chain(cut_secret(&base64, secret, prefix_min(extent, BASE64_CHARS_MIN))) {
                // The neighbouring characters hold bits of the secret.
                found.push(view.place(views::base64_run(&base64, place)));
            }
        }
    }
}

/// Shortest prefix of a secret that is hidden at the end of a text, in bytes: `cut` if the text was cut.
fn prefix_min(extent: Extent, cut: usize) -> usize {
    match extent {
        Extent::Whole => PREFIX_BYTES_MIN,
        Extent::Cut => cut,
    }
}

/// The end of a text, if it is a prefix of the secret with at least `least` bytes.
fn cut_secret(text: &[u8], secret: &[u8], least: usize) -> Option<Range<usize>> {
    let from = text.len().saturating_sub(secret.len() - 1);
    let mut starts = memchr::memchr_iter(*secret.first()?, &text[from..]).map(|at| from + at);
    let start = starts.find(|start| secret.starts_with(&text[*start..]))?;
    (text.len() - start >= least).then_some(start..text.len())
}

/// Finds the credentials after a scheme: the HTTP client or the node may have made them from the address.
fn find_credentials(text: &str, found: &mut Vec<Range<usize>>) {
    for scheme in SCHEMES {
        for (at, _) in text.match_indices(scheme) {
            let start = at + scheme.len();
            let rest = &text[start..];
            let end = start + rest.find([' ', '"', ',', '\n']).unwrap_or(rest.len());
            // `Basic authentication` is not a secret.
            let is_word = text[start..end].bytes().all(|byte| byte.is_ascii_lowercase());
            if end - start >= 2 * PASSWORD_BYTES_MIN && !is_word {
                found.push(start..end);
            }
        }
    }
}

/// Replaces each secret that was found, overlapping ones together.
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

/// Secrets in plain text.
#[derive(Debug, Default)]
struct PlainSecrets(Vec<String>);

impl PlainSecrets {
    /// Adds a secret, and the secrets within it: the password after a colon, and the text decoded from Base64.
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
            // A user name without a password is a token.
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

/// Whether a query parameter is a secret.
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

/// Decodes the user name or the password of an address.
fn percent_decoded(text: &str) -> String {
    // Here, unlike in a query, a plus sign is not a space.
    let pair = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests;
