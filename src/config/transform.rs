//! The settings of the transforms: a table `[[transform]]` each, in the file only.

use std::sync::Arc;

use forebay_transform::scope::Scope;
use forebay_transform::settings::Settings;
use forebay_transform::{KINDS, NAME_BYTES_MAX, TRANSFORMS_MAX, TransformConfig, TransformKind};

use super::layers::Layers;
use super::transform_table::{KEY, Table};

/// The keys that every transform has.
const COMMON: [&str; 2] = ["kind", "name"];

pub(super) fn read(layers: &mut Layers) -> Vec<TransformConfig> {
    let tables = layers.take_transforms();
    if tables.len() > TRANSFORMS_MAX {
        layers.fault(KEY, format!("must have at most {TRANSFORMS_MAX} transforms, got {}", tables.len()));
    }
    let mut configs: Vec<TransformConfig> = Vec::new();
    for (index, table) in tables.into_iter().enumerate().take(TRANSFORMS_MAX) {
        configs.extend(read_one(layers, index + 1, &table, &configs));
    }
    configs
}

/// Reads the transform at this position, from 1.
fn read_one(
    layers: &mut Layers,
    position: usize,
    table: &Table,
    before: &[TransformConfig],
) -> Option<TransformConfig> {
    let mut settings = Settings::new(table.values.clone());
    let [kind_key, name_key] = COMMON;
    let kind_name = settings.text(kind_key);
    if kind_name.is_none() {
        let known = KINDS.names().collect::<Vec<_>>().join(", ");
        settings.require(kind_key, &format!("one of {known}"));
    }
    let name = settings.text(name_key);
    let scope = Scope::read(&mut settings);
    let kind = kind_name.as_deref().and_then(|kind| read_kind(kind, &mut settings));
    let default = format!("{}-{position}", kind_name.as_deref().unwrap_or("transform"));
    let name = name.unwrap_or(default);
    check_name(&name, before, &mut settings);
    // The keys of an unknown kind are not known either.
    let is_known = kind_name.is_some_and(|kind| KINDS.find(&kind).is_ok());
    let faults = settings.finish();
    for fault in &faults {
        if is_known || COMMON.contains(&fault.key.as_str()) {
            let line = table.line_of(&fault.key);
            layers.transform_fault(line, &format!("{KEY} {name}: {}", fault.key), fault.problem.clone());
        }
    }
    layers.transform_settings(table.line, &name, &table.values);
    faults.is_empty().then_some(TransformConfig { name, scope, kind: kind? })
}

fn read_kind(name: &str, settings: &mut Settings) -> Option<Arc<dyn TransformKind>> {
    match KINDS.find(name) {
        Ok(read) => read(settings),
        Err(unknown) => {
            settings.fault(COMMON[0], unknown.to_string());
            None
        }
    }
}

/// A name becomes a label of metrics, and is stored with the readings that the transform makes.
fn check_name(name: &str, before: &[TransformConfig], settings: &mut Settings) {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        let problem = format!(
            "must be 1 to {NAME_BYTES_MAX} letters of a to z, A to Z, 0 to 9, - _ and ., got `{name}`"
        );
        settings.fault(COMMON[1], problem);
    } else if before.iter().any(|other| other.name == name) {
        settings.fault(COMMON[1], format!("must be another than those before it, got `{name}` again"));
    }
}
