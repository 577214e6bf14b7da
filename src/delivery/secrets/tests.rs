#![expect(clippy::disallowed_types, reason = "it measures")]

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))
    };
    pairs.iter().map(pair).collect()
}

fn secrets(url: &str, pairs: &[(&'static str, &str)]) -> Secrets {
    let url: Url = url.parse().expect("a URL");
    Secrets::of([url].iter(), &headers(pairs))
}

#[track_caller]
fn check(secrets: &Secrets, text: &str, expected: &str) {
    assert_eq!(secrets.hide(text, Extent::Whole), expected, "{text}");
}

/// Encodes in Base64; `alphabet` has the last two characters.
fn base64(text: &str, alphabet: [char; 2], padding: &str) -> String {
    let bits: Vec<u8> = text.bytes().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let mut encoded = String::new();
    for sextet in bits.chunks(6) {
        let value = (0..6).fold(0, |value, at| value << 1 | sextet.get(at).copied().unwrap_or(0));
        encoded.push(match value {
            0..26 => char::from(b'A' + value),
            26..52 => char::from(b'a' + value - 26),
            52..62 => char::from(b'0' + value - 52),
            other => alphabet[usize::from(other - 62)],
        });
    }
    encoded + &padding.repeat((3 - text.len() % 3) % 3)
}

#[test]
fn texts_show_no_secret_of_the_settings() {
    let secrets = secrets(
        "http://me:pass-word@h/?db=readings&p=hush-hush&x-api-key=k123&q=1",
        &[("authorization", "Bearer s3cret-token"), ("cookie", "on"), ("x-short", "abcde")],
    );
    check(&secrets, "Bearer s3cret-token is wrong", "*** is wrong");
    check(&secrets, "no s3cret-token here, and no pass-word", "no *** here, and no ***");
    check(&secrets, "hush-hush k123 1", "*** *** 1");
    check(&secrets, "the database readings goes on, abcde", "the database readings goes on, abcde");
    // The HTTP client makes this header from the address.
    check(&secrets, "you sent Basic bWU6cGFzcy13b3Jk, thanks", "you sent Basic ***, thanks");
    check(&secrets, "Basic a Basic Basic bWU6cGFzcy13b3Jk", "Basic a Basic Basic ***");
    check(&secrets, "set Token é\u{202e}", "set Token é\u{202e}");
    check(&Secrets::default(), "you sent Basic QWxhZGRpbjpvcGVu", "you sent Basic ***");
    check(&Secrets::default(), "Basic authentication is needed", "Basic authentication is needed");
}

#[test]
fn a_secret_is_found_in_every_encoding_that_a_node_may_repeat_it_in() {
    let secret = "p/w+ \"ä&x'<y>\\z=9";
    let mut url: Url = "http://me@h/".parse().expect("a URL");
    url.set_password(Some(secret)).expect("a password");
    let secrets = Secrets::of([url].iter(), &HeaderMap::new());
    let percent = |keep: fn(&u8) -> bool, upper: bool| -> String {
        let encoded = |byte: u8| match (keep(&byte), upper) {
            (true, _) => char::from(byte).to_string(),
            (false, true) => format!("%{byte:02X}"),
            (false, false) => format!("%{byte:02x}"),
        };
        secret.bytes().map(encoded).collect()
    };
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = serde_json::to_string(secret).expect("JSON").trim_matches('"').to_owned();
    let all_units: String = secret.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
    let ways = [
        secret.to_owned(),
        secret.to_uppercase().replace('Ä', "ä"),
        percent(u8::is_ascii_alphanumeric, true),
        percent(u8::is_ascii_alphanumeric, false),
        percent(|_| false, true),
        percent(|byte| byte.is_ascii_graphic() && *byte != b'%', true),
        form.clone(),
        form.replace('+', "%20"),
        form.replace('%', "%25"),
        json.clone(),
        json.replace('/', "\\/"),
        all_units,
        serde_json::to_string(&json).expect("JSON").trim_matches('"').to_owned(),
        html.clone(),
        html.replace('\'', "&#39;").replace("&quot;", "&#x22;").replace("&amp;", "&#38;"),
        form.replace('&', "&amp;"),
        hex.clone(),
        hex.to_lowercase(),
    ];
    for way in ways {
        check(&secrets, &format!("a {way} b"), "a *** b");
        check(&secrets, &format!("{way}{way}"), "***");
        check(&secrets, &format!("é{way}é"), "é***é");
    }
}

#[test]
fn a_secret_that_looks_escaped_is_found_unchanged_and_escaped_again() {
    let secrets = secrets("http://h/", &[("x-key", "ab%41cd\\u0041&amp;ef")]);
    check(&secrets, "(ab%41cd\\u0041&amp;ef)", "(***)");
    check(&secrets, "(ab%2541cd%5Cu0041%26amp%3Bef)", "(***)");
    check(&secrets, r"(ab%41cd\\u0041&amp;ef)", "(***)");
}

#[test]
fn a_secret_within_base64_is_found_at_any_offset_and_in_both_alphabets() {
    let secrets = secrets(
        "http://me:hunter22@h/",
        &[("x-key", "t0ken~>?~"), ("authorization", "ApiKey aWQ6YXBpLXNlY3JldA==")],
    );
    for secret in ["hunter22", "t0ken~>?~", "api-secret", "id:api-secret"] {
        for before in ["", "u", "us", "use", "user:"] {
            for after in ["", "x", "xy", "xyz"] {
                for (alphabet, padding) in
                    [(['+', '/'], "="), (['-', '_'], ""), (['+', '/'], "%3D"), (['-', '_'], "=")]
                {
                    let encoded = base64(&format!("{before}{secret}{after}"), alphabet, padding);
                    for encoded in [
                        encoded.clone(),
                        encoded.replace('/', "\\/"),
                        encoded.replace('/', "%2F").replace('+', "%2B"),
                    ] {
                        let hidden =
                            secrets.hide(&format!("got `{encoded}` there"), Extent::Whole).into_owned();
                        assert_eq!(hidden, "got `***` there", "{secret} in {encoded}");
                    }
                }
            }
        }
    }
    check(&secrets, "aWQ6YXBpLXNlY3JldA", "***");
    check(&secrets, "bm90aGluZyBvZiB0aGUga2luZA==", "bm90aGluZyBvZiB0aGUga2luZA==");
}

#[test]
fn secret_parts_of_headers_and_addresses_are_recognised() {
    let secrets = secrets(
        "http://to-ken-77@h/x?sig=abc%2Fdef&api_key=k-1-k-1&q=0123456789abcdef&code=seven7&db=influx-db&wait_for_async_insert=1",
        &[
            ("authorization", "Basic dXNlcjpteS1wYXNz"),
            ("cookie", "session=oneonetwo; theme=\"darkest\""),
            ("x-clickhouse-key", "click-secret"),
            ("proxy-authorization", "Digest username=\"me\", response=\"d16e57\""),
            ("x-two", "Token user77:pass77"),
        ],
    );
    for secret in [
        "to-ken-77",
        "abc/def",
        "k-1-k-1",
        "0123456789abcdef",
        "seven7",
        "my-pass",
        "user:my-pass",
        "oneonetwo",
        "darkest",
        "click-secret",
        "d16e57",
        "pass77",
    ] {
        check(&secrets, &format!("({secret})"), "(***)");
    }
    check(&secrets, "no database influx-db of me, 1", "no database influx-db of me, 1");
}

#[test]
fn a_cut_text_shows_no_prefix_of_a_secret() {
    let secrets = secrets("http://me:s3cret-pass@h/", &[("x-key", "0123456789abcdef")]);
    let forms = [
        "0123456789abcdef",
        "%30%31%32%33%34%35%36",
        "\\u0030\\u0031\\u0032\\u0033\\u0034\\u0035",
        "s3cret-pass",
    ];
    for form in forms {
        for length in 1..=form.len() {
            let text = format!("key: {}", &form[..length]);
            let hidden = secrets.hide(&text, Extent::Cut).into_owned();
            let shown = hidden.strip_prefix("key: ").expect("the words before it").replace("***", "");
            assert!(shown.len() < 6, "{text}: {hidden}");
        }
    }
    assert_eq!(secrets.hide("key: 0123", Extent::Cut), "key: ***");
    check(&secrets, "key: 0123", "key: 0123");
    check(&secrets, "key: 0123456", "key: ***");
    let encoded = base64("me:s3cret-pass", ['+', '/'], "=");
    for length in 8..encoded.len() {
        let hidden = secrets.hide(&encoded[..length], Extent::Cut).into_owned();
        assert_eq!(hidden, "***", "{}", &encoded[..length]);
    }
}

#[test]
fn the_time_for_a_text_grows_only_with_its_length() {
    let key = "a".repeat(4000);
    let secrets =
        secrets("http://me:aaaaaaaaaaaaaaaab@h/", &[("x-key", &key), ("x-other", "%25%25%25%25%25")]);
    let texts = [
        "a".repeat(64 << 10),
        "%25".repeat(20_000),
        "\\u0061".repeat(10_000),
        "&amp;".repeat(12_000),
        "%".repeat(64 << 10),
    ];
    let started = std::time::Instant::now();
    for text in &texts {
        let _ = secrets.hide(text, Extent::Cut);
    }
    // It takes some tens of milliseconds, even in a debug build.
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

proptest! {
    #[test]
    fn no_text_causes_a_panic_or_shows_a_secret(
        before in "[%\\\\u&#;x0-9a-fé ]{0,24}",
        after in "[%\\\\u&#;x0-9a-fé ]{0,24}",
        secret in "[ -)+-~]{6,24}",
    ) {
        let secret = secret.trim();
        prop_assume!(secret.len() >= SECRET_BYTES_MIN);
        let secrets = secrets("http://h/", &[("x-key", secret)]);
        for extent in [Extent::Whole, Extent::Cut] {
            let hidden = secrets.hide(&format!("{before}{secret}{after}"), extent).into_owned();
            prop_assert!(!hidden.contains(secret), "{hidden}");
        }
    }
}
