//! The meaning of the statuses of the paths that take readings.
//!
//! `docs/src/reference/statuses.md` is generated from this table; `tests/it/documents.rs` compares it with the answers.

/// A status, explained for authors of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRow {
    /// The status.
    pub status: u16,
    /// Its cause, and whether anything was accepted; `reserved: …` if this version never answers it.
    pub when: &'static str,
    /// What the client does next.
    pub remedy: &'static str,
}

const fn row(status: u16, when: &'static str, remedy: &'static str) -> StatusRow {
    StatusRow { status, when, remedy }
}

/// Every status, in their order.
pub const STATUSES: &[StatusRow] = &[
    row(
        202,
        "at least one reading was accepted, or the request held none",
        "look at `rejected`; `errors` lists the first 100 that were turned away",
    ),
    row(204, "on the paths of InfluxDB's clients: every line was accepted, or there was none", "nothing"),
    row(
        400,
        "the body is not what it claims to be (JSON, UTF-8, gzip…; of NDJSON: not one line is), it broke \
         off, a query parameter is not known, is there twice or has a value that it cannot have, or the \
         `Idempotency-Key` or the `Host` is not valid; nothing was accepted",
        "correct the request; the detail gives line and column, and what the body looks like if it looks \
         like something else",
    ),
    row(
        401,
        "with `auth.keys`: no key, an unknown one, one that does not hold now, or two that differ; nothing was accepted",
        "send a valid key, as `WWW-Authenticate` says",
    ),
    row(
        403,
        "the request comes from a web page of another origin than the gateway's; or its key covers none of its readings, \
         or is not for writing; nothing was accepted",
        "list the page's origin in `server.origins`; or use another key, or widen its `devices` and `sensors`",
    ),
    row(404, "no such path", "post to `/v1/readings`"),
    row(405, "another method than the path takes", "use the one that `Allow` names"),
    row(
        408,
        "the body did not arrive within `server.request_timeout`; nothing was accepted",
        "send again, in smaller requests",
    ),
    row(
        409,
        "the first request with this `Idempotency-Key` is still under way",
        "send again after `Retry-After`, one second",
    ),
    row(
        411,
        "the request says neither `Content-Length` nor `Transfer-Encoding: chunked`; nothing was accepted",
        "say how long the body is; an empty one has `Content-Length: 0`",
    ),
    row(
        413,
        "the body is larger than `server.max_body`, becomes many times larger once its `values` are \
         written out, or needs more room than the whole buffer has; nothing was accepted",
        "send smaller requests",
    ),
    row(
        415,
        "a media type or content encoding that is not known, or several; nothing was accepted",
        "use one that `Accept` or `Accept-Encoding` lists",
    ),
    row(
        421,
        "the gateway does not go by the name that the request asks for; nothing was accepted",
        "use its address, or list the name in `server.hosts`",
    ),
    row(
        422,
        "every reading was turned away, or one was and the request is strict, the acknowledgement cannot \
         be given, or the `Idempotency-Key` came with another request; nothing was accepted. With \
         `ack=delivered` also: nodes refused readings of the request; these are kept as dead letters, the \
         others were delivered",
        "correct the readings that `errors` names; use a new key for a new request; do not send again \
         what is a dead letter",
    ),
    row(
        429,
        "too many requests without a valid key have come from this address (`limits.unauthorized`); or, through a trusted \
         proxy, this client has too many requests under way (`limits.connections`); nothing was accepted",
        "correct the key, or send less at once, and send again after `Retry-After`",
    ),
    row(
        500,
        "a defect in the gateway",
        "report it; whether something was accepted is open if the detail does not say",
    ),
    row(
        501,
        "`Transfer-Encoding` names another coding than `chunked`; nothing was accepted",
        "compress by `Content-Encoding`",
    ),
    row(
        503,
        "the buffer is full, readings cannot be stored now, too many bodies are being read, too many \
         requests wait for delivery or have an `Idempotency-Key`, or the gateway is shutting down; \
         nothing was accepted. With `ack=delivered` also: readings were given up, could not be read back \
         from disk, or the gateway stopped before all were delivered",
        "send again after `Retry-After` seconds",
    ),
    row(
        508,
        "the request has come through this gateway before (`Forebay-Via`); nothing was accepted",
        "correct `cluster.nodes` of the gateways, so that none leads back to one before it",
    ),
];
