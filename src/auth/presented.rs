//! How a key comes in a request: in a header, or in the query of `/write`.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use url::form_urlencoded;

use super::secret::KeyHash;

/// Longest key that is looked at, in bytes.
pub const PRESENTED_BYTES_MAX: usize = 512;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The parameter that holds the key in the query of `/write`, as clients of InfluxDB 1 send their password.
const PARAMETER: &str = "p";
/// RFC 7617 asks for padding, which some devices leave out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a request presents no key that can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PresentedError {
    /// `Authorization` has a scheme that is not taken.
    #[error(
        "the header `Authorization` must be `Bearer KEY`, `Token KEY`, or `Basic` with the key as the password"
    )]
    Scheme,
    /// The credentials of `Basic` are not Base64 with a colon in it.
    #[error("the header `Authorization: Basic` must have a name, a colon and the key, in Base64")]
    Basic,
    /// There are two keys that differ.
    #[error("the request has two different keys; allowed: one")]
    Several,
    /// The key is longer than any that is known.
    #[error("the key is longer than {PRESENTED_BYTES_MAX} bytes")]
    Length,
}

/// The key that a request presents.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented(Vec<u8>);

impl std::fmt::Debug for Presented {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Presented(***)")
    }
}

/// Whether the key may stand in the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InQuery {
    /// As `p=KEY`.
    Allowed,
    /// The query is not looked at.
    Ignored,
}

impl Presented {
    /// The key of a request; `None` for a request without a key. One key may stand in several places.
    ///
    /// # Errors
    ///
    /// [`PresentedError`] unless there is exactly one key, or none.
    pub fn read(
        headers: &HeaderMap,
        query: Option<&str>,
        in_query: InQuery,
    ) -> Result<Option<Presented>, PresentedError> {
        let mut found: Option<Presented> = None;
        let mut see = |key: Vec<u8>| {
            if key.len() > PRESENTED_BYTES_MAX {
                return Err(PresentedError::Length);
            }
            // Clients that have no password or token send the parameter or the header all the same.
            if key.is_empty() {
                return Ok(());
            }
            match &found {
                Some(known) if known.0 != key => return Err(PresentedError::Several),
                _ => found = Some(Presented(key)),
            }
            Ok(())
        };
        for value in headers.get_all(AUTHORIZATION) {
            see(authorization(value)?)?;
        }
        for value in headers.get_all(X_API_KEY) {
            see(value.as_bytes().trim_ascii().to_vec())?;
        }
        if in_query == InQuery::Allowed {
            for (_, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .filter(|(name, _)| name == PARAMETER)
            {
                see(value.into_owned().into_bytes())?;
            }
        }
        Ok(found)
    }

    pub(super) fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

/// The key in a header `Authorization`; empty for a scheme alone, as Telegraf sends it without a token.
fn authorization(value: &HeaderValue) -> Result<Vec<u8>, PresentedError> {
    let text = value.as_bytes().trim_ascii();
    let scheme_end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let (scheme, credentials) = (&text[..scheme_end], text[scheme_end..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"token") {
        return Ok(credentials.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(PresentedError::Scheme);
    }
    if credentials.len() > 2 * PRESENTED_BYTES_MAX {
        return Err(PresentedError::Length);
    }
    let decoded = BASE64.decode(credentials).map_err(|_| PresentedError::Basic)?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(PresentedError::Basic)?;
    Ok(decoded[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    #[track_caller]
    fn check(lines: &[(&'static str, &str)], query: &str, expected: Result<Option<&str>, PresentedError>) {
        let found = Presented::read(&headers(lines), Some(query), InQuery::Allowed);
        let expected = expected.map(|key| key.map(|key| Presented(key.as_bytes().to_vec())));
        assert_eq!(found, expected, "{lines:?} {query}");
    }

    #[test]
    fn a_key_may_come_in_each_of_the_forms_that_clients_have() {
        check(&[], "", Ok(None));
        check(&[("authorization", "Bearer fb_a")], "", Ok(Some("fb_a")));
        check(&[("authorization", "bearer  fb_a ")], "", Ok(Some("fb_a")));
        check(&[("authorization", "Token fb_a")], "", Ok(Some("fb_a")));
        check(&[("authorization", "Basic bmFtZTpmYl9hOmI=")], "", Ok(Some("fb_a:b")));
        check(&[("authorization", "Basic bmFtZTpmYl9hOmI")], "", Ok(Some("fb_a:b")));
        check(&[("authorization", "Basic OmZiX2E=")], "", Ok(Some("fb_a")));
        check(&[("x-api-key", "fb_a")], "", Ok(Some("fb_a")));
        check(&[], "db=x&u=name&p=fb_a", Ok(Some("fb_a")));
        check(&[], "p=a%2Bb", Ok(Some("a+b")));
        check(&[], "u=&p=", Ok(None));
        for empty in ["Token ", "Token", "Bearer", "Basic Og=="] {
            check(&[("authorization", empty)], "", Ok(None));
        }
        let ignored = Presented::read(&headers(&[]), Some("p=fb_a"), InQuery::Ignored);
        assert_eq!(ignored, Ok(None));
    }

    #[test]
    fn the_same_key_twice_is_one_and_two_keys_are_refused() {
        check(&[("authorization", "Token a"), ("x-api-key", "")], "u=&p=", Ok(Some("a")));
        check(&[("authorization", "Bearer a"), ("x-api-key", "a")], "p=a", Ok(Some("a")));
        for (lines, query) in [
            (vec![("authorization", "Bearer a"), ("authorization", "Bearer b")], ""),
            (vec![("authorization", "Bearer a"), ("x-api-key", "b")], ""),
            (vec![("x-api-key", "a"), ("x-api-key", "b")], ""),
            (vec![("authorization", "Token a")], "p=b"),
            (vec![], "p=a&p=b"),
        ] {
            check(&lines, query, Err(PresentedError::Several));
        }
    }

    #[test]
    fn what_cannot_be_read_as_a_key_is_refused() {
        check(&[("authorization", "Digest a")], "", Err(PresentedError::Scheme));
        check(&[("authorization", "fb_a")], "", Err(PresentedError::Scheme));
        check(&[("authorization", "")], "", Err(PresentedError::Scheme));
        check(&[("authorization", "Basic ???")], "", Err(PresentedError::Basic));
        check(&[("authorization", "Basic")], "", Err(PresentedError::Basic));
        check(&[("authorization", "Basic YQ==")], "", Err(PresentedError::Basic));
        let long = "k".repeat(PRESENTED_BYTES_MAX + 1);
        check(&[("x-api-key", &long)], "", Err(PresentedError::Length));
        check(&[("authorization", &format!("Basic {}", "k".repeat(5000)))], "", Err(PresentedError::Length));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Presented(b"fb_a".to_vec())), "Presented(***)");
    }
}
