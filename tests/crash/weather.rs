//! How the nodes are, and how a life of the gateway ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::support::Answer;

/// How the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    /// They take everything.
    Fair,
    /// They do anything.
    Foul,
    /// They take nothing.
    Away,
}

/// The weather that all nodes have.
#[derive(Clone, Debug, Default)]
pub struct Sky(Arc<AtomicU8>);

impl Sky {
    /// Changes it.
    pub fn set(&self, weather: Weather) {
        self.0.store(weather as u8, Ordering::Relaxed);
    }

    /// The answer of a node.
    pub fn answer(&self, random: &mut fastrand::Rng) -> Answer {
        let millis = |range| Duration::from_millis(range);
        match self.0.load(Ordering::Relaxed) {
            0 => Answer::status(200),
            1 => match random.u8(..20) {
                0..=7 => Answer::status(200),
                8..=9 => Answer::status(200).after(millis(random.u64(1..60))),
                // Later than the gateway waits.
                10 => Answer::status(200).after(millis(300)),
                11..=12 => Answer::status(503),
                13..=15 => Answer::status(500).after_storing(),
                16 => Answer::hang_up(),
                17 => Answer::hang_up().after(millis(random.u64(1..30))),
                _ => Answer::hang_up().after_storing(),
            },
            _ if random.u8(..3) == 0 => Answer::hang_up(),
            _ => Answer::status(503).after(millis(random.u64(..10))),
        }
    }
}

/// How a round ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It is killed as soon as it was started.
    KilledAtStart,
    /// It is killed at work.
    Killed,
    /// It gets a signal to stop, and is killed while it stops.
    KilledAtStop,
    /// It gets a signal to stop, and ends by itself.
    Stopped,
}

/// How ten rounds end, in any order.
const TEN_ENDS: [End; 10] = [
    End::KilledAtStart,
    End::KilledAtStart,
    End::Killed,
    End::Killed,
    End::Killed,
    End::Killed,
    End::Killed,
    End::KilledAtStop,
    End::KilledAtStop,
    End::Stopped,
];

/// One life of the gateway.
#[derive(Debug)]
pub struct Round {
    /// How it ends.
    pub end: End,
    /// The weather in the first and in the second half.
    pub weather: [Weather; 2],
    /// How long each of them lasts.
    pub half: Duration,
    /// From the start, or from the signal to stop, to the kill.
    pub grace: Duration,
}

impl Round {
    /// Chooses so many, whose halves are no longer than this. Among any ten there is every end.
    pub fn choose(count: usize, half_max: Duration, random: &mut fastrand::Rng) -> Vec<Round> {
        let mut ends = Vec::new();
        while ends.len() < count {
            let mut ten = TEN_ENDS;
            random.shuffle(&mut ten);
            ends.extend(ten);
        }
        ends.truncate(count);
        ends.into_iter().map(|end| Round::ending(end, half_max, random)).collect()
    }

    fn ending(end: End, half_max: Duration, random: &mut fastrand::Rng) -> Round {
        let weathers = [Weather::Fair, Weather::Foul, Weather::Foul, Weather::Away, Weather::Away];
        let mut weather = || weathers[random.usize(..weathers.len())];
        let weather = [weather(), weather()];
        let half =
            Duration::from_micros(random.u64(10_000..half_max.as_micros().try_into().expect("it is short")));
        Round { end, weather, half, grace: Duration::from_micros(random.u64(..200_000)) }
    }
}
