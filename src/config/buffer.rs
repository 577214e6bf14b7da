//! The settings of the buffer.

use std::time::Duration;

use forebay_reading::quantity::format_duration;
use forebay_reading::setting::{SettingValue, within};

use super::layers::{Layers, Setting, SettingOrigin};
use super::{HOUR, IneffectiveSetting, MILLISECOND, choice, choice_name, count, directory, size};
use crate::buffer::{Ack, Amount, BufferConfig, Fsync, KINDS, OVERFLOW_POLICIES};

/// Settings that only some kinds of buffer have.
const OF_SOME_KINDS: [&str; 2] = ["buffer.path", "buffer.fsync"];

pub(super) fn read(layers: &mut Layers, request_timeout: Duration, memos_kept: Duration) -> BufferConfig {
    let kind = choice_name(layers, "buffer.kind", &KINDS);
    let on_full = choice(layers, "buffer.on_full", &OVERFLOW_POLICIES);
    BufferConfig {
        kind,
        ack: ack(layers, kind),
        limit: Amount {
            readings: count(layers, "buffer.max_readings", 1..=1_000_000_000_000) as u64,
            bytes: size(layers, "buffer.max_bytes", 1024..=1 << 50),
        },
        on_full: on_full(request_timeout),
        path: layers.get("buffer.path", directory),
        fsync: layers.get("buffer.fsync", fsync),
        memos_kept,
    }
}

/// Reads the acknowledgement. The default is the first that the kind can give; setting one that it cannot give is a
/// fault.
fn ack(layers: &mut Layers, kind: &str) -> Ack {
    let acks = KINDS.find(kind).expect("the name comes from the table").acks;
    let ack = *choice(layers, "buffer.ack", &Ack::NAMES);
    if acks.contains(&ack) {
        return ack;
    }
    let default = acks[0];
    if let Some(setting) = layers.settings.iter_mut().find(|setting| setting.key == "buffer.ack")
        && matches!(setting.origin, SettingOrigin::Default)
    {
        default.name().clone_into(&mut setting.value);
        return default;
    }
    let allowed: Vec<_> = acks.iter().map(|ack| ack.name()).collect();
    let allowed = allowed.join(", ");
    let problem = format!("`{ack}` cannot be given by a buffer of the kind `{kind}`; allowed: {allowed}");
    layers.fault("buffer.ack", problem);
    default
}

/// Settings that are set and have no effect with this kind.
pub(super) fn without_effect(layers: &Layers, config: &BufferConfig) -> Vec<IneffectiveSetting> {
    let is_idle = |setting: &&Setting| {
        let key = setting.key.as_str();
        OF_SOME_KINDS.contains(&key)
            && !config.kind().settings.contains(&key)
            && !matches!(setting.origin, SettingOrigin::Default)
    };
    let why = format!("with a buffer of the kind `{}`", config.kind);
    let without_effect =
        |setting: &Setting| IneffectiveSetting { setting: setting.clone(), why: why.clone() };
    layers.settings.iter().filter(is_idle).map(without_effect).collect()
}

fn fsync(value: &SettingValue) -> Result<Fsync, String> {
    let text = value.text()?;
    match text.parse().map_err(|_| format!("must be `always`, or an interval such as 200ms, got `{text}`"))? {
        Fsync::Always => Ok(Fsync::Always),
        Fsync::Every(interval) => {
            within(interval, &(MILLISECOND..=HOUR), |interval| format_duration(*interval)).map(Fsync::Every)
        }
    }
}
