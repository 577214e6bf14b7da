use super::*;

/// A request with these header lines, given as `name: value`.
fn request(method: &str, target: &str, version: Version, lines: &[&str]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(target).version(version);
    for line in lines {
        let (name, value) = line.split_once(':').expect("a header line");
        let value = HeaderValue::from_bytes(value.trim().as_bytes()).expect("a value");
        request = request.header(name, value);
    }
    request.body(()).expect("a request")
}

fn post(lines: &[&str]) -> Request<()> {
    request("POST", "/v1/readings", Version::HTTP_11, lines)
}

fn config(origins: &[&str], hosts: &[&str]) -> DoorConfig {
    DoorConfig {
        origins: origins.iter().map(|text| WebOrigin::parse(text).expect("an origin")).collect(),
        hosts: hosts.iter().map(|text| Host::parse(text).expect("a host").into_owned()).collect(),
    }
}

fn door(address: &str, origins: &[&str], hosts: &[&str]) -> Door {
    Door::new(config(origins, hosts), address.parse().expect("an address"))
}

/// A door on loopback with empty lists.
fn loopback() -> Door {
    door("127.0.0.1:8080", &[], &[])
}

#[track_caller]
fn expect(door: &Door, request: &Request<()>, status: u16) {
    let got = door.admit(request).err().map_or(200, |refusal| refusal.status.as_u16());
    assert_eq!(got, status, "{request:?}");
}

#[test]
fn an_http_1_1_request_has_exactly_one_valid_host() {
    let door = loopback();
    expect(&door, &post(&[]), 400);
    expect(&door, &post(&["host: 127.0.0.1:8080"]), 200);
    for lines in [["host: 127.0.0.1:8080", "host: 127.0.0.1:8080"], ["host: localhost", "host: evil.example"]]
    {
        expect(&door, &post(&lines), 400);
    }
    for host in
        ["", "a b", "a/b", "a:b", "user@localhost", "http://localhost", "[::1", "localhost:99999", "ä"]
    {
        expect(&door, &post(&[&format!("host: {host}")]), 400);
        // Probes may use an unknown host, but not a malformed one.
        expect(&door, &request("GET", "/healthz", Version::HTTP_11, &[&format!("host: {host}")]), 400);
    }
    let refusal = door.admit(&post(&["host: a b"])).expect_err("no host");
    assert_eq!(
        refusal.detail,
        "the header `Host` is `a b`; allowed: a name or an IP address, with a port or without"
    );
}

#[test]
fn an_http_1_0_request_needs_no_host_but_a_malformed_one_is_400() {
    let door = loopback();
    let old = |lines: &[&str]| request("POST", "/write", Version::HTTP_10, lines);
    expect(&door, &old(&[]), 200);
    expect(&door, &old(&["host: localhost"]), 200);
    expect(&door, &old(&["host: a b"]), 400);
    expect(&door, &old(&["host: a", "host: a"]), 400);
    expect(&door, &old(&["host: evil.example"]), 421);
    // Without a host no origin is the same origin.
    expect(&door, &old(&["origin: http://127.0.0.1:8080"]), 403);
}

#[test]
fn an_absolute_target_takes_precedence_over_the_host_header() {
    let door = loopback();
    let get = |target: &str, lines: &[&str]| request("GET", target, Version::HTTP_11, lines);
    expect(&door, &get("http://127.0.0.1:8080/status", &["host: evil.example"]), 200);
    expect(&door, &get("http://evil.example/status", &["host: 127.0.0.1:8080"]), 421);
    expect(&door, &get("http://evil.example/healthz", &["host: 127.0.0.1:8080"]), 200);
    expect(&door, &get("http://user@localhost/status", &["host: localhost"]), 400);
    expect(&door, &get("http://localhost/status", &[]), 400);
    expect(&door, &get("http://localhost:8080/status", &["host: x", "origin: http://localhost:8080"]), 200);
    expect(&door, &request("OPTIONS", "*", Version::HTTP_11, &["host: localhost"]), 200);
}

#[test]
fn on_loopback_an_unlisted_host_name_is_421_and_probes_are_exempt() {
    for address in ["127.0.0.1:8080", "127.1.2.3:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
        let door = door(address, &[], &[]);
        for host in [
            "evil.example",
            "evil.example:8080",
            "evil.example.",
            "gateway",
            "localhost.evil.example",
            "127.1",
        ] {
            expect(&door, &post(&[&format!("host: {host}")]), 421);
            for (path, status) in
                [("/healthz", 200), ("/readyz", 200), ("/readyz?require=nodes", 200), ("/status", 421)]
            {
                let lines = [&*format!("host: {host}")];
                expect(&door, &request("GET", path, Version::HTTP_11, &lines), status);
            }
        }
        for host in
            ["localhost", "LOCALHOST.:8080", "127.0.0.1", "192.0.2.7:80", "[::1]:8080", "[2001:db8::1]"]
        {
            expect(&door, &post(&[&format!("host: {host}")]), 200);
        }
    }
    let refusal = loopback().admit(&post(&["host: evil.example"])).expect_err("not known");
    assert_eq!(
        refusal.detail,
        "nothing is known here of the host `evil.example`; use an IP address or `localhost`, or list the name in \
         `server.hosts`"
    );
    let node = Door::of_node("127.0.0.1:9000".parse().expect("an address"));
    let refusal = node.admit(&post(&["host: evil.example"])).expect_err("not known");
    assert!(refusal.status == 421 && !refusal.detail.contains("server.hosts"), "{refusal:?}");
    let refusal =
        node.admit(&post(&["host: localhost", "origin: http://evil.example"])).expect_err("foreign");
    assert!(refusal.status == 403 && !refusal.detail.contains("server.origins"), "{refusal:?}");
}

#[test]
fn beyond_loopback_host_names_are_checked_once_some_are_listed() {
    let open = door("0.0.0.0:8080", &[], &[]);
    expect(&open, &post(&["host: gateway:8080"]), 200);
    expect(&open, &post(&["host: anything.example"]), 200);
    for address in ["0.0.0.0:8080", "127.0.0.1:8080"] {
        let listed = door(address, &[], &["gw.example", "other.example:8443"]);
        for (host, status) in [
            ("gw.example", 200),
            ("GW.example.:8080", 200),
            ("other.example:8443", 200),
            ("other.example", 421),
            ("x.gw.example", 421),
            ("192.0.2.7", 200),
            ("localhost", 200),
            ("evil.example", 421),
        ] {
            expect(&listed, &post(&[&format!("host: {host}")]), status);
        }
    }
}

#[test]
fn a_page_of_another_origin_is_403_and_of_the_same_origin_is_not() {
    let door = loopback();
    for (origin, status) in [
        ("http://localhost:8080", 200),
        ("HTTP://LOCALHOST:8080", 200),
        ("http://localhost.:8080", 200),
        ("https://localhost:8080", 403),
        ("http://localhost", 403),
        ("http://localhost:3000", 403),
        ("http://127.0.0.1:8080", 403),
        ("http://evil.example", 403),
        ("http://localhost:8080.evil.example", 403),
        ("null", 403),
        ("", 403),
        ("chrome-extension://abcdef", 403),
    ] {
        for method in ["GET", "POST", "OPTIONS", "HEAD"] {
            let lines = ["host: localhost:8080", &format!("origin: {origin}")];
            expect(&door, &request(method, "/v1/readings", Version::HTTP_11, &lines), status);
            expect(&door, &request(method, "/healthz", Version::HTTP_11, &lines), status);
        }
    }
    expect(&door, &post(&["host: localhost", "origin: http://localhost", "origin: http://localhost"]), 403);
    // A default port is the same with and without it.
    expect(&door, &post(&["host: localhost:80", "origin: http://localhost"]), 200);
    expect(&door, &post(&["host: [::1]", "origin: http://[0::1]:80"]), 200);
}

#[test]
fn a_cross_site_request_is_403_even_without_an_origin() {
    let door = loopback();
    for (site, status) in
        [("cross-site", 403), ("Cross-Site", 403), ("same-site", 200), ("same-origin", 200), ("none", 200)]
    {
        let lines = ["host: localhost", &format!("sec-fetch-site: {site}")];
        expect(&door, &request("GET", "/status", Version::HTTP_11, &lines), status);
        expect(&door, &post(&lines), status);
    }
    // The same site is not enough: the origin must be the same too.
    expect(
        &door,
        &post(&["host: localhost", "sec-fetch-site: same-site", "origin: http://localhost:3000"]),
        403,
    );
    expect(&door, &post(&["host: localhost", "sec-fetch-site: cross-site", "origin: http://localhost"]), 403);
}

#[test]
fn a_link_on_another_site_may_lead_to_the_page_and_nowhere_else() {
    let door = loopback();
    let lines = ["host: localhost", "sec-fetch-site: cross-site", "sec-fetch-mode: navigate"];
    for (method, target, status) in [
        ("GET", "/", 200),
        ("GET", "/?from=elsewhere", 200),
        ("POST", "/", 403),
        ("GET", "/status", 403),
        ("POST", "/write", 403),
    ] {
        expect(&door, &request(method, target, Version::HTTP_11, &lines), status);
    }
    expect(
        &door,
        &request("GET", "/", Version::HTTP_11, &[lines[0], lines[1], "sec-fetch-mode: no-cors"]),
        403,
    );
    // A navigation needs a known host name, too.
    expect(&door, &request("GET", "/", Version::HTTP_11, &["host: evil.example", lines[1], lines[2]]), 421);
}

#[test]
fn a_listed_origin_is_admitted_and_gets_cors_headers() {
    let door = door("127.0.0.1:8080", &["https://Dashboard.example", "http://app.example:3000"], &[]);
    for (origin, status) in [
        ("https://dashboard.example", 200),
        ("https://dashboard.example:443", 200),
        ("http://dashboard.example", 403),
        ("https://x.dashboard.example", 403),
        ("http://app.example:3000", 200),
        ("http://app.example", 403),
    ] {
        let lines = ["host: localhost", "sec-fetch-site: cross-site", &format!("origin: {origin}")];
        expect(&door, &post(&lines), status);
    }
    let lines =
        ["host: localhost", "origin: https://dashboard.example", "access-control-request-method: POST"];
    let preflight = request("OPTIONS", "/v1/readings", Version::HTTP_11, &lines);
    let response = door.admit(&preflight).expect("it is listed").preflight(&preflight).expect("a preflight");
    assert_eq!(response.status(), 204);
    let headers = response.headers();
    assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://dashboard.example");
    assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD, POST");
    let allowed = headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().expect("ASCII");
    for name in ["authorization", "x-api-key", "content-type", "content-encoding", "idempotency-key"] {
        assert!(allowed.split(", ").any(|known| known == name), "{name}");
    }
    assert!(headers.contains_key(ACCESS_CONTROL_MAX_AGE) && headers[VARY] == "origin");
    assert!(!headers.contains_key(ALLOW_PRIVATE_NETWORK));

    let mut answer = StatusCode::ACCEPTED.into_response();
    door.admit(&preflight).expect("it is listed").add_headers(&mut answer);
    assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://dashboard.example");
    assert!(answer.headers()[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().expect("ASCII").contains("retry-after"));
}

#[test]
fn only_a_listed_origin_gets_an_answer_to_a_preflight() {
    let door = door("127.0.0.1:8080", &["https://dashboard.example"], &[]);
    for lines in [
        &["host: localhost", "access-control-request-method: POST"][..],
        &["host: localhost", "origin: http://localhost", "access-control-request-method: POST"],
        &["host: localhost", "origin: https://dashboard.example"],
    ] {
        let options = request("OPTIONS", "/v1/readings", Version::HTTP_11, lines);
        let visitor = door.admit(&options).expect("it comes in");
        assert!(visitor.preflight(&options).is_none(), "{lines:?}");
    }
    let mut answer = StatusCode::OK.into_response();
    door.admit(&post(&["host: localhost"])).expect("it comes in").add_headers(&mut answer);
    assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[test]
fn the_only_transfer_coding_is_chunked_and_only_once() {
    let door = loopback();
    for (lines, status) in [
        (&["transfer-encoding: chunked"][..], 200),
        (&["transfer-encoding: Chunked"], 200),
        (&["transfer-encoding: , chunked"], 200),
        (&["transfer-encoding: foo, chunked"], 501),
        (&["transfer-encoding: gzip, chunked"], 501),
        (&["transfer-encoding: identity", "transfer-encoding: chunked"], 501),
        (&["transfer-encoding: chunked, chunked"], 400),
        (&["transfer-encoding: chunked", "transfer-encoding: chunked"], 400),
        (&["transfer-encoding: chunked, gzip"], 400),
        (&["transfer-encoding: gzip"], 400),
        (&["transfer-encoding: chunked;x=1"], 400),
    ] {
        let lines: Vec<_> = ["host: localhost"].iter().chain(lines).copied().collect();
        expect(&door, &post(&lines), status);
    }
}

#[test]
fn the_usual_host_skips_no_other_check() {
    let door = loopback();
    // A probe may come under any host name, but other requests may not.
    let probe = |path| request("GET", path, Version::HTTP_11, &["host: evil.example"]);
    expect(&door, &probe("/healthz"), 200);
    expect(&door, &probe("/status"), 421);
    for _ in 0..2 {
        expect(&door, &post(&["host: localhost:8080"]), 200);
        expect(&door, &post(&["host: evil.example"]), 421);
        expect(&door, &post(&["host: localhost:8080", "host: localhost:8080"]), 400);
        expect(&door, &post(&["host: localhost:8080", "origin: http://evil.example"]), 403);
        expect(&door, &post(&["host: localhost:8080", "sec-fetch-site: cross-site"]), 403);
        expect(&door, &post(&["host: localhost:8080", "transfer-encoding: foo, chunked"]), 501);
        let absolute = request("POST", "http://evil.example/", Version::HTTP_11, &["host: localhost:8080"]);
        expect(&door, &absolute, 421);
        expect(&door, &post(&["content-length: 5"]), 400);
    }
}

#[test]
fn a_quoted_header_is_short_and_visible() {
    assert_eq!(quoted("a\tb\u{202e}".as_bytes()), "a\\u{9}b\\u{202e}");
    assert_eq!(quoted(&b"x".repeat(1000)).len(), QUOTE_CHARS_MAX);
}
