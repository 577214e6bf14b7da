//! Advice on answers and faults: the option of the command line that may mend one.

use http::StatusCode;

use crate::call_failure::{self, CallFailure};

/// What to do about a gateway's answer that turns its client away, whatever the readings are.
pub fn on_status(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED => Some("--key or FOREBAY_KEY gives a key that the gateway knows"),
        StatusCode::FORBIDDEN => Some("--key or FOREBAY_KEY gives a key that may do this"),
        _ => None,
    }
}

/// What to do about a request without an answer.
pub(super) fn on_fault(error: &reqwest::Error) -> Option<&'static str> {
    if let Some(failure) = call_failure::of(error) {
        return on_call_failure(&failure);
    }
    // The connection was made, and ended before the answer. The reason is not always told: a server of TLS closes plain
    // connections, and an alert can be lost with a connection that is reset.
    if !error.is_request() || error.is_connect() || error.is_timeout() {
        return None;
    }
    match error.url()?.scheme() {
        "https" => Some("if the server asks for a client certificate, --cert and --cert-key name one"),
        _ => Some("if the server speaks TLS, its address begins with https://"),
    }
}

fn on_call_failure(failure: &CallFailure) -> Option<&'static str> {
    if failure.is_unknown_authority() {
        Some("--tls-ca names the file of its authority")
    } else if failure.is_about_own_certificate() {
        Some("--cert and --cert-key name the files of the one to show")
    } else {
        None
    }
}
