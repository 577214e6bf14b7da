//! The sender of a request, and its permission: decided once, from the head, before the body is read.
//!
//! | what | answer |
//! |---|---|
//! | a client behind a trusted proxy has as many requests under way as it may (`limits.connections`) | 429 |
//! | the address has had its refusals (`limits.unauthorized`) | 429, without a look at the key |
//! | no key, an unknown one, one that does not hold now, two that differ | 401 |
//! | the key is for something else: `write` where the operator looks, `read` where readings are taken | 403 |
//!
//! Without a file of keys, every client may use every path of the listener.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use forebay_codec::grant::Grant;
use forebay_reading::clock::wall_time;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use prometheus::IntCounter;
use thiserror::Error;
use tokio::time::Instant;

use super::refusal::{RefusalReason, whole_seconds};
use crate::auth::addresses::Addresses;
use crate::auth::presented::{InQuery, Presented};
use crate::auth::usage::{KeyUsage, UsageTable};
use crate::auth::{CallerError, Key, Keyring, Rate, Role};
use crate::door::client_address;
use crate::listener::{AddressPlace, Peer, PerAddress};
use crate::problem::Problem;

/// Who may do what.
#[derive(Debug)]
pub struct Access {
    /// The keys in force; `None` if anyone may write.
    known: ArcSwapOption<KnownKeys>,
    usage: Arc<UsageTable>,
    addresses: Option<Addresses>,
    proxies: Vec<IpNet>,
    /// The requests with readings that clients behind proxies have under way.
    under_way: PerAddress,
}

/// The keys of a file, each with its counters.
#[derive(Debug)]
struct KnownKeys {
    keyring: Keyring,
    /// In the order of the keyring.
    owners: Vec<Arc<KeyOwner>>,
}

/// The owner of a key.
#[derive(Debug)]
pub(super) struct KeyOwner {
    key: Arc<Key>,
    usage: Arc<KeyUsage>,
}

/// Who sends a request.
#[derive(Clone, Debug, Default)]
pub(super) enum Caller {
    /// Nobody asks: there are no keys.
    #[default]
    Anyone,
    /// The owner of a key. It is counted once for both of its parts: some counters belong to many keys, so that all threads
    /// would contend for their number of owners.
    Key(Arc<KeyOwner>),
}

impl Caller {
    /// The name of the key.
    pub(super) fn key_name(&self) -> Option<&str> {
        self.key().map(|key| &*key.name)
    }

    /// The key.
    pub(super) fn key(&self) -> Option<&Arc<Key>> {
        match self {
            Caller::Anyone => None,
            Caller::Key(owner) => Some(&owner.key),
        }
    }

    /// The rights of the caller; `None` if the caller may write every reading.
    pub(super) fn grant(&self) -> Option<Arc<Grant>> {
        self.key()?.grant.clone()
    }

    /// Counts the readings of the caller that are accepted.
    pub(super) fn accepted(&self) -> Option<IntCounter> {
        match self {
            Caller::Anyone => None,
            Caller::Key(owner) => Some(owner.usage.accepted.clone()),
        }
    }

    pub(super) fn count_rejected(&self, readings: u64) {
        if let Caller::Key(owner) = self {
            owner.usage.rejected.inc_by(readings);
        }
    }
}

/// Why a request is refused before its body is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum AccessError {
    /// The address has had too many answers of 401.
    #[error("too many requests without a valid key have come from this address")]
    TooManyUnauthorized { retry_after: Duration },
    /// The client, which comes through a proxy, has too many requests under way.
    #[error("this client has as many requests under way as it may (`limits.connections`)")]
    TooManyUnderWay,
    /// Nobody knows who sends it.
    #[error(transparent)]
    Unauthorized(#[from] CallerError),
    /// The key is for something else.
    #[error(
        "the key `{name}` has the role `{}`; this needs a key with the role `{}`", has.name(), needs.name()
    )]
    Role { name: Arc<str>, has: Role, needs: Role },
}

/// Restricts a route to operators: once the gateway has keys, the route needs a key with the role `read`.
pub fn for_operators(access: &Arc<Access>, route: MethodRouter) -> MethodRouter {
    route.route_layer(from_fn_with_state(Arc::clone(access), check_operator))
}

async fn check_operator(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Arc<Peer>>().cloned().unwrap_or_default();
    let asked = (request.headers(), request.uri().query());
    let is_for_page = is_for_page(request.headers());
    match access.caller(asked, InQuery::Ignored, &peer, Role::Read) {
        Ok(_) => next.run(request).await,
        Err(error) => {
            let mut response = error.into_response();
            if is_for_page && response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().append(WWW_AUTHENTICATE, ASK_FOR_PASSWORD);
            }
            response
        }
    }
}

/// A challenge (RFC 7617) that makes a browser ask its user for a name and a password; the password is the key. No browser
/// asks its user for a `Bearer` token.
const ASK_FOR_PASSWORD: HeaderValue = HeaderValue::from_static("Basic realm=\"Forebay\", charset=\"UTF-8\"");

/// Whether a browser requests a page or a file of one: it says so in a header (Fetch Metadata Request Headers, W3C), over HTTPS
/// and on loopback alone. Elsewhere nothing would tell the door which requests are of other sites, so nobody is asked there.
fn is_for_page(headers: &HeaderMap) -> bool {
    let is_file =
        |dest: &HeaderValue| ["document", "script", "style", "image"].iter().any(|file| dest == file);
    headers.get("sec-fetch-dest").is_some_and(is_file)
}

impl IntoResponse for AccessError {
    fn into_response(self) -> Response {
        let mut response = Problem::new(self.status(), self.to_string()).into_response();
        response.headers_mut().extend(self.header());
        response.extensions_mut().insert(RefusalReason(Some(self.reason())));
        response
    }
}

impl AccessError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            AccessError::TooManyUnauthorized { .. } | AccessError::TooManyUnderWay => {
                StatusCode::TOO_MANY_REQUESTS
            }
            AccessError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            AccessError::Role { .. } => StatusCode::FORBIDDEN,
        }
    }

    /// Whether the address has had too much, whoever sends the request.
    pub(super) fn is_by_address(&self) -> bool {
        matches!(self, AccessError::TooManyUnauthorized { .. } | AccessError::TooManyUnderWay)
    }

    /// Why, in a word, for `forebay_requests_refused_total`.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            AccessError::TooManyUnauthorized { .. } | AccessError::TooManyUnderWay => "rate",
            AccessError::Unauthorized(_) => "unauthorized",
            AccessError::Role { .. } => "key",
        }
    }

    /// The header that belongs to the status.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            AccessError::TooManyUnauthorized { retry_after } => {
                Some((RETRY_AFTER, whole_seconds(*retry_after)))
            }
            AccessError::TooManyUnderWay => Some((RETRY_AFTER, whole_seconds(RETRY_UNDER_WAY))),
            AccessError::Unauthorized(_) => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            AccessError::Role { .. } => None,
        }
    }
}

/// When a client that has too many requests under way may come again: any of them may end at any moment.
const RETRY_UNDER_WAY: Duration = Duration::from_secs(1);

impl Access {
    /// Counts keys in `usage`; there are none before [`Access::set_keys`]. The other two are limits by address.
    pub fn new(usage: Arc<UsageTable>, unauthorized: Option<Rate>, under_way: PerAddress) -> Access {
        let addresses = unauthorized.map(Addresses::new);
        Access { known: ArcSwapOption::empty(), usage, addresses, proxies: Vec::new(), under_way }
    }

    /// The same behind proxies of these networks, which are believed when they say whose request they pass on.
    #[must_use]
    pub fn behind(self, proxies: Vec<IpNet>) -> Access {
        Access { proxies, ..self }
    }

    /// Puts the keys of a file in force, for every request whose head comes from now on.
    pub fn set_keys(&self, keyring: Keyring) {
        let owner = |key: &Arc<Key>| KeyOwner { key: Arc::clone(key), usage: self.usage.of(&key.name) };
        let owners = keyring.keys().iter().map(|key| Arc::new(owner(key))).collect();
        self.known.store(Some(Arc::new(KnownKeys { keyring, owners })));
    }

    /// Whether requests need a key.
    pub fn has_keys(&self) -> bool {
        self.known.load().is_some()
    }

    /// The address of the client whose request comes from a peer.
    pub(super) fn address(&self, peer: &Peer, headers: &HeaderMap) -> Option<IpAddr> {
        let address = peer.address?;
        Some(if self.proxies.is_empty() { address } else { client_address(address, headers, &self.proxies) })
    }

    /// A place for a request with readings of the client at `address`, to be held until its answer; `None` if it needs none.
    ///
    /// The connections of a client are limited by their number, unless they come through a trusted proxy: such a connection
    /// carries the requests of many clients, so that the requests themselves are counted.
    ///
    /// # Errors
    ///
    /// The client has as many under way as it may.
    pub(super) fn place(
        &self,
        peer: &Peer,
        address: Option<IpAddr>,
    ) -> Result<Option<AddressPlace>, AccessError> {
        let is_told_by_a_proxy = address != peer.address;
        is_told_by_a_proxy
            .then(|| self.under_way.take(address).ok_or(AccessError::TooManyUnderWay))
            .transpose()
    }

    /// The sender of a request, which must have the role that the request needs.
    ///
    /// # Errors
    ///
    /// [`AccessError`]; an answer of 401 counts for the address.
    pub(super) fn caller(
        &self,
        (headers, query): (&HeaderMap, Option<&str>),
        in_query: InQuery,
        peer: &Peer,
        needs: Role,
    ) -> Result<Caller, AccessError> {
        let known = self.known.load();
        let Some(known) = known.as_ref() else { return Ok(Caller::Anyone) };
        let limit = self.addresses.as_ref().zip(self.address(peer, headers));
        if let Some((addresses, address)) = limit
            && let Some(retry_after) = addresses.is_spent(address, Instant::now())
        {
            return Err(AccessError::TooManyUnauthorized { retry_after });
        }
        let now = wall_time();
        let presented = Presented::read(headers, query, in_query);
        let position = known.keyring.find(presented, peer.names(), now).inspect_err(|_| {
            if let Some((addresses, address)) = limit {
                addresses.on_refused(address, Instant::now());
            }
        })?;
        let owner = &known.owners[position];
        let key = &owner.key;
        if key.role != needs {
            return Err(AccessError::Role { name: Arc::clone(&key.name), has: key.role, needs });
        }
        Ok(Caller::Key(Arc::clone(owner)))
    }
}
