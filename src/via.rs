//! `Forebay-Via`: which gateways readings have come through, so that a loop of gateways is found.
//!
//! Every gateway has an id, drawn at its start. A batch carries the ids of the gateway that sends it and of those that readings
//! have come from lately; a gateway that finds its own id in a request answers 508. So a loop is found however many gateways
//! it has, from the second round on: which of its readings came from where, a gateway does not know, and what it has sent
//! before it heard of the others says nothing of them.
//!
//! Limits: `REMEMBERED_MAX` other gateways, each for `REMEMBERED_FOR` after it was seen last.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// The header.
pub const FOREBAY_VIA: HeaderName = HeaderName::from_static("forebay-via");

/// Most other gateways that are remembered; the one that was seen longest ago goes first.
const REMEMBERED_MAX: usize = 32;
/// How long another gateway is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Longest id of another gateway, in bytes. Longer ones are none.
const ID_BYTES_MAX: usize = 64;

/// Which way readings have come, and go on with.
#[derive(Debug)]
pub struct Via {
    id: String,
    /// The other gateways that readings have come from. Held for a few comparisons, never across an await.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The ids, and when each was seen last, the latest at the end.
    ids: Vec<(String, Instant)>,
    /// The value of the header for these.
    header: HeaderValue,
}

/// A request that has come through this gateway before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looped;

impl Via {
    /// Of a gateway whose id is made of this random number.
    pub fn new(random: u128) -> Via {
        let id = format!("{random:032x}");
        let header = header(&id, &[]);
        Via { id, seen: Mutex::new(Seen { ids: Vec::new(), header }) }
    }

    /// Looks at a request, and remembers the gateways that its readings have come through.
    ///
    /// # Errors
    ///
    /// [`Looped`] if this gateway is among them.
    pub fn check(&self, headers: &HeaderMap, now: Instant) -> Result<(), Looped> {
        if !headers.contains_key(FOREBAY_VIA) {
            return Ok(());
        }
        let values = headers.get_all(FOREBAY_VIA).iter().filter_map(|value| value.to_str().ok());
        let ids: Vec<&str> =
            values.flat_map(|value| value.split(',')).map(str::trim).filter(|id| is_id(id)).collect();
        if ids.iter().any(|id| id.eq_ignore_ascii_case(&self.id)) {
            return Err(Looped);
        }
        let mut seen = self.lock();
        let before = seen.ids.len();
        let mut is_new = false;
        for id in ids.into_iter().take(REMEMBERED_MAX) {
            let known = seen.ids.iter().position(|(known, _)| known == id).map(|at| seen.ids.remove(at).0);
            is_new |= known.is_none();
            seen.ids.push((known.unwrap_or_else(|| id.to_owned()), now));
        }
        let excess = seen.ids.len().saturating_sub(REMEMBERED_MAX);
        seen.ids.drain(..excess);
        if is_new || seen.ids.len() != before {
            seen.header = header(&self.id, &seen.ids);
        }
        Ok(())
    }

    /// The value of the header of what is sent now.
    pub fn header(&self, now: Instant) -> HeaderValue {
        let mut seen = self.lock();
        let is_over = |(_, at): &(String, Instant)| now.saturating_duration_since(*at) > REMEMBERED_FOR;
        if seen.ids.first().is_some_and(is_over) {
            seen.ids.retain(|seen| !is_over(seen));
            seen.header = header(&self.id, &seen.ids);
        }
        seen.header.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a text may be an id of a gateway.
fn is_id(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_fine)
}

/// The others in the order in which they were seen, and the own id last, as each hop appends its own.
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

    /// What a gateway sends after it was sent this.
    fn sent(via: &Via, now: Instant) -> HeaderMap {
        HeaderMap::from_iter([(FOREBAY_VIA, via.header(now))])
    }

    #[test]
    fn a_loop_is_found_however_many_gateways_it_has() {
        let now = Instant::now();
        for count in 1..5_u128 {
            let ring: Vec<Via> = (0..count).map(Via::new).collect();
            let mut headers = sent(&ring[0], now);
            for gateway in &ring[1..] {
                assert_eq!(gateway.check(&headers, now), Ok(()));
                headers = sent(gateway, now);
            }
            assert_eq!(ring[0].check(&headers, now), Err(Looped), "a ring of {count}");
        }
    }

    #[test]
    fn the_own_id_is_found_wherever_it_stands_and_nothing_else_is_taken_for_it() {
        let (via, now) = (Via::new(7), Instant::now());
        let own = id(7);
        for values in [
            &[own.as_str()][..],
            &[&format!("{}, {own}", id(8))],
            &[&format!("{own},{}", id(8))],
            &["x", &own],
            &[&own.to_uppercase()],
        ] {
            assert_eq!(via.check(&with(values), now), Err(Looped), "{values:?}");
        }
        for values in
            [&[][..], &[""], &[","], &[&own[1..]], &[&format!("{own}0")], &[&format!("{own} {own}")]]
        {
            assert_eq!(via.check(&with(values), now), Ok(()), "{values:?}");
        }
        assert_eq!(via.check(&HeaderMap::new(), now), Ok(()));
    }

    #[test]
    fn others_are_named_until_they_were_not_seen_for_long_and_only_so_many() {
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
