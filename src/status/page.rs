//! The page at `/`: the state of the gateway for people. It has no scripts and loads nothing but its style sheet.

use std::fmt::Write as _;

use http::header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS};

use super::readiness::Readiness;
use super::report::{NodeReport, StatusReport};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Forebay</title>
<link rel="stylesheet" href="/page.css">
</head>
<body>
"#;

/// Security headers of the page. Its texts come from nodes and devices, so even an unescaped one must not be able to run,
/// load or send anything; and no other site may show the page in a frame.
pub(super) const HEADERS: [(HeaderName, &str); 3] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
];

/// The style sheet, a file of its own because the policy forbids inline styles.
pub(super) const STYLE: &str = include_str!("page.css");

/// Renders the page.
pub(super) fn render(report: &StatusReport, readiness: &Readiness) -> String {
    let mut html = HEAD.to_owned();
    // Writing to a string does not fail.
    let _ = write!(
        html,
        "<h1>Forebay <span class=\"{0}\">{0}</span></h1>\n<p>version {1}, up for {2}</p>\n",
        readiness.status,
        report.version,
        duration(report.uptime_seconds)
    );
    let checks = &readiness.checks;
    for (_, check) in checks.named() {
        if let Some(reason) = &check.reason {
            let _ = writeln!(html, "<p class=\"{}\">{}</p>", readiness.status, escape(reason));
        }
    }
    ledger(report, &mut html);
    buffer(report, &mut html);
    transforms(report, &mut html);
    nodes(report, &mut html);
    html += "<p><a href=\"/status\">status as JSON</a> · <a href=\"/metrics\">metrics</a> · \
             <a href=\"/readyz\">readiness</a> · <a href=\"/openapi.json\">OpenAPI</a></p>\n</body>\n</html>\n";
    html
}

fn ledger(report: &StatusReport, html: &mut String) {
    let ledger = &report.ledger;
    let rows = [
        ("accepted", ledger.accepted),
        ("recovered at the start", ledger.recovered),
        ("derived", ledger.derived),
        ("delivered", ledger.delivered),
        ("dead-lettered", ledger.dead_lettered),
        ("filtered", ledger.filtered),
        ("merged", ledger.merged),
        ("dropped", ledger.dropped),
        ("buffered", ledger.buffered),
    ];
    *html += "<h2>Where the readings are</h2>\n<table>\n";
    for (name, number) in rows {
        let _ = writeln!(html, "<tr><th>{name}</th><td class=\"number\">{}</td></tr>", thousands(number));
    }
    *html += "</table>\n";
}

fn buffer(report: &StatusReport, html: &mut String) {
    let buffer = &report.buffer;
    let _ = write!(
        html,
        "<h2>Buffer ({}, acknowledged when {})</h2>\n<table>\n\
         <tr><th>readings</th><td><meter max=\"{2}\" value=\"{3}\"></meter></td><td class=\"number\">{4} of {5}</td></tr>\n\
         <tr><th>bytes</th><td><meter max=\"{6}\" value=\"{7}\"></meter></td><td class=\"number\">{8} of {9}</td></tr>\n\
         <tr><th>oldest</th><td></td><td class=\"number\">{10:.1} s</td></tr>\n</table>\n",
        buffer.kind,
        match buffer.ack {
            "delivered" => "delivered",
            "disk" => "on disk",
            _ => "in memory",
        },
        buffer.limit_readings,
        buffer.readings,
        thousands(buffer.readings),
        thousands(buffer.limit_readings),
        buffer.limit_bytes,
        buffer.bytes,
        thousands(buffer.bytes),
        thousands(buffer.limit_bytes),
        buffer.oldest_seconds
    );
}

fn transforms(report: &StatusReport, html: &mut String) {
    if report.transforms.is_empty() {
        return;
    }
    *html += "<h2>Transforms</h2>\n<table>\n<tr><th>transform</th><th>filtered</th><th>merged</th><th>derived</th>\
              <th>open windows</th><th>failed</th><th>late</th><th>evicted</th></tr>\n";
    for transform in &report.transforms {
        let numbers = [
            transform.filtered,
            transform.merged,
            transform.derived,
            transform.open_windows,
            transform.failed,
            transform.late,
            transform.evicted,
        ];
        let _ = write!(html, "<tr><td>{}</td>", escape(&transform.name));
        for number in numbers {
            let _ = write!(html, "<td class=\"number\">{}</td>", thousands(number));
        }
        *html += "</tr>\n";
    }
    *html += "</table>\n";
}

fn nodes(report: &StatusReport, html: &mut String) {
    *html += "<h2>Nodes</h2>\n<table>\n<tr><th>node</th><th>state</th><th>in flight</th><th>latency</th>\
              <th>oldest waiting</th><th>delivered</th></tr>\n";
    for node in &report.nodes {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{} of {}</td><td>{}</td><td>{:.1} s</td><td class=\"number\">{}</td></tr>",
            escape(&node.url),
            state(node),
            node.in_flight,
            node.in_flight_limit,
            latency(node),
            node.oldest_waiting_seconds,
            thousands(node.delivered)
        );
    }
    *html += "</table>\n";
}

/// The latency of a node; a dash until it has answered.
fn latency(node: &NodeReport) -> String {
    node.latency_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{:.0} ms", seconds * 1000.0))
}

/// The state of a node with its reason, its breaker, and its last error.
fn state(node: &NodeReport) -> String {
    let mut html = format!("<span class=\"{0}\">{0}</span>", node.state);
    if let Some(reason) = &node.reason {
        let _ = write!(html, " {}", escape(reason));
    }
    if node.breaker != "closed" {
        let (breaker, ejected) =
            (node.breaker.replace('_', " "), if node.ejected { ", ejected" } else { "" });
        let _ = write!(html, "<br>breaker {breaker}{ejected}");
    }
    if let Some(seconds) = node.trial_in_seconds {
        let _ = write!(html, ", next trial in {seconds:.1} s");
    }
    if let Some(error) = &node.last_error {
        let is_shown = node.reason.as_deref() == Some(error.text.as_str());
        let text = if is_shown { String::new() } else { format!(": {}", escape(&error.text)) };
        let _ = write!(html, "<br>last error {}{text}", error.at);
    }
    html
}

/// Escapes text from outside for HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_readable_and_text_from_nodes_is_escaped() {
        assert_eq!((thousands(0), thousands(1234567)), ("0".to_owned(), "1,234,567".to_owned()));
        assert_eq!((duration(59), duration(3 * 3600 + 61)), ("59 s".to_owned(), "3 h 1 min".to_owned()));
        assert_eq!(escape("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
    }
}
