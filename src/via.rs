//! `Forebay-Via`: the gateways that readings have come through, to detect loops of gateways.
//!
//! Every gateway draws an id at its start. A batch carries the ids of its gateway and of all gateways that have recently
//! sent readings to it. A gateway that finds its own id in a request answers 508. So a loop of any length is detected,
//! from the second round on: a gateway does not track the path of each reading, and its batches cannot name gateways that
//! it has not heard from yet.
//!
//! Limits: `REMEMBERED_MAX` other gateways, each for `REMEMBERED_FOR` after its last request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// The header.
pub const FOREBAY_VIA: HeaderName = HeaderName::from_static("forebay-via");

/// Most other gateways that are remembered; the one with the oldest request is forgotten first.
const REMEMBERED_MAX: usize = 32;
/// How long another gateway is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Longest id of another gateway, in bytes. Longer ids are ignored.
const ID_BYTES_MAX: usize = 64;

/// The id of this gateway, and the gateways that have recently sent readings to it.
#[derive(Debug)]
pub struct Via {
    id: String,
    /// The other gateways. The lock is held for a few comparisons, never across an await.
    recent: Mutex<RecentGateways>,
}

#[derive(Debug)]
struct RecentGateways {
    /// Each id with the time of its last request, the latest at the end.
    ids: Vec<(String, Instant)>,
    /// The header's value for these ids.
    header: HeaderValue,
}

/// A request has come through this gateway before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLoop;

impl Via {
    /// Creates the state of a gateway whose id is `random`.
    pub fn new(random: u128) -> Via {
        let id = format!("{random:032x}");
        let header = header(&id, &[]);
        Via { id, recent: Mutex::new(RecentGateways { ids: Vec::new(), header }) }
    }

    /// Remembers the gateways that a request's readings have come through.
    ///
    /// # Errors
    ///
    /// [`GatewayLoop`] if this gateway is among them.
    pub fn check(&self, headers: &HeaderMap, now: Instant) -> Result<(), GatewayLoop> {
        if !headers.contains_key(FOREBAY_VIA) {
            return Ok(());
        }
        let values = headers.get_all(FOREBAY_VIA).iter().filter_map(|value| value.to_str().ok());
        let ids: Vec<&str> =
            values.flat_map(|value| value.split(',')).map(str::trim).filter(|id| is_id(id)).collect();
        if ids.iter().any(|id| id.eq_ignore_ascii_case(&self.id)) {
            return Err(GatewayLoop);
        }
        let mut recent = self.lock();
        let before = recent.ids.len();
        let mut is_new = false;
        for id in ids.into_iter().take(REMEMBERED_MAX) {
            let known =
                recent.ids.iter().position(|(known, _)| known == id).map(|at| recent.ids.remove(at).0);
            is_new |= known.is_none();
            recent.ids.push((known.unwrap_or_else(|| id.to_owned()), now));
        }
        let excess = recent.ids.len().saturating_sub(REMEMBERED_MAX);
        recent.ids.drain(..excess);
        if is_new || recent.ids.len() != before {
            recent.header = header(&self.id, &recent.ids);
        }
        Ok(())
    }

    /// The header's value for a batch that is sent at `now`.
    pub fn header(&self, now: Instant) -> HeaderValue {
        let mut recent = self.lock();
        let is_over = |(_, at): &(String, Instant)| now.saturating_duration_since(*at) > REMEMBERED_FOR;
        if recent.ids.first().is_some_and(is_over) {
            recent.ids.retain(|seen| !is_over(seen));
            recent.header = header(&self.id, &recent.ids);
        }
        recent.header.clone()
    }

    fn lock(&self) -> MutexGuard<'_, RecentGateways> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a text may be an id of a gateway.
fn is_id(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fine)
}

/// The other ids in the order of their requests, and the own id last, because each hop appends its own.
fn header(id: &str, others: &[(String, Instant)]) -> HeaderValue {
    let ids: Vec<&str> = others.iter().map(|(id, _)| id.as_str()).chain([id]).collect();
    HeaderValue::from_str(&ids.join(", ")).expect("ids are letters and digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> HeaderMap {
        let value = |value: &&str| (FOREBAY_VIA, HeaderValue::from_str(value).expect("a header"));
        values.iter().map(value).collect()
    }

    fn id(number: u128) -> String {
        format!("{number:032x}")
    }

    /// The headers of a batch that `via` sends at `now`.
    fn sent(via: &Via, now: Instant) -> HeaderMap {
        HeaderMap::from_iter([(FOREBAY_VIA, via.header(now))])
    }

    #[test]
    fn a_loop_of_any_length_is_detected() {
        let now = Instant::now();
        for count in 1..5_u128 {
            let ring: Vec<Via> = (0..count).map(Via::new).collect();
            let mut headers = sent(&ring[0], now);
            for gateway in &ring[1..] {
                assert_eq!(gateway.check(&headers, now), Ok(()));
                headers = sent(gateway, now);
            }
            assert_eq!(ring[0].check(&headers, now), Err(GatewayLoop), "a ring of {count}");
        }
    }

    #[test]
    fn only_the_own_id_is_a_loop_wherever_it_stands_in_the_headers() {
        let (via, now) = (Via::new(7), Instant::now());
        let own = id(7);
        for values in [
            &[own.as_str()][..],
            &[&format!("{}, {own}", id(8))],
            &[&format!("{own},{}", id(8))],
            &["x", &own],
            &[&own.to_uppercase()],
        ] {
            assert_eq!(via.check(&with(values), now), Err(GatewayLoop), "{values:?}");
        }
        for values in
            [&[][..], &[""], &[","], &[&own[1..]], &[&format!("{own}0")], &[&format!("{own} {own}")]]
        {
            assert_eq!(via.check(&with(values), now), Ok(()), "{values:?}");
        }
        assert_eq!(via.check(&HeaderMap::new(), now), Ok(()));
    }

    #[test]
    fn other_gateways_are_named_for_a_limited_time_and_in_limited_number() {
        let (via, start) = (Via::new(7), Instant::now());
        assert_eq!(via.header(start), id(7));
        via.check(&with(&["a, b", "a"]), start).expect("no loop");
        assert_eq!(via.header(start), format!("b, a, {}", id(7)).as_str());
        let later = start + REMEMBERED_FOR;
        via.check(&with(&["b"]), later).expect("no loop");
        assert_eq!(via.header(later + Duration::from_secs(1)), format!("b, {}", id(7)).as_str());
        let many: Vec<String> = (0..1000).map(|number| format!("gateway-{number}")).collect();
        for other in &many {
            via.check(&with(&[other, &"x".repeat(65), "no id", "\u{7f}".trim()].map(|it| it)[..2]), later)
                .expect("no loop");
        }
        let text = via.header(later).to_str().expect("ASCII").to_owned();
        assert_eq!(text.split(", ").count(), REMEMBERED_MAX + 1);
        assert!(text.contains("gateway-999, ") && !text.contains("xx"), "{text}");
    }
}
