//! The table for readings: the columns that it needs, and the statement that creates it.

use serde::Deserialize;

use crate::diagnosis::excerpt;

/// Most unfit columns in a message.
const UNFIT_LISTED_MAX: usize = 10;

/// A column, as in the answer to `DESCRIBE TABLE … FORMAT JSONEachRow`.
#[derive(Debug, Deserialize)]
pub(super) struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    default_type: String,
    /// Missing in versions before 19.
    ttl_expression: Option<String>,
}

/// Reads the description of a table; `None` if the text is something else.
pub(super) fn columns(description: &str) -> Option<Vec<Column>> {
    let lines = description.lines().filter(|line| !line.trim().is_empty());
    let columns: Vec<Column> = lines.map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    Some(columns).filter(|columns| !columns.is_empty())
}

/// Judges whether the table can take readings.
///
/// # Errors
///
/// The missing and the unfit columns, for people, and how to mend the table, whose quoted name is `table`.
pub(super) fn judge(table: &str, columns: &[Column]) -> Result<String, String> {
    let is_old = columns.iter().all(|column| column.ttl_expression.is_none());
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    let (mut unfit, mut missing, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    for (name, kind) in [
        ("device", "String"),
        ("sensor", "String"),
        ("value", "Float64"),
        ("time", if is_old { "String" } else { "DateTime64(9, 'UTC')" }),
        ("unit", "String"),
        ("tags", "Map(String, String)"),
    ] {
        match find(name).map(|column| fit(column, is_old)) {
            Some(Fit::Good) => {}
            Some(Fit::But(remark)) => remarks.push(format!("`{name}` {remark}")),
            Some(Fit::Not(why)) => unfit.push(format!("`{name}` {why}")),
            None if name == "unit" || name == "tags" => remarks.push(format!(
                "without a column `{name}`, readings that have {0} are refused, or lose {0} if the address says \
                 input_format_skip_unknown_fields=1",
                if name == "unit" { "one" } else { "any" }
            )),
            None => missing.push(format!("ALTER TABLE {table} ADD COLUMN `{name}` {kind}")),
        }
    }
    if unfit.is_empty() && missing.is_empty() {
        let remarks: String = remarks.iter().map(|remark| format!("; {remark}")).collect();
        return Ok(format!("has the table {table}{remarks}"));
    }
    unfit.truncate(UNFIT_LISTED_MAX);
    let unfit: String = unfit.iter().map(|why| format!("\n{why}")).collect();
    let missing: String = missing.iter().map(|statement| format!("\nwhat is missing: {statement}")).collect();
    Err(format!("the table {table} cannot take readings:{unfit}{missing}"))
}

/// Whether a column can take its field of readings.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Good,
    /// It can take a part of the field's values.
    But(&'static str),
    /// It cannot, for this reason.
    Not(String),
}

fn fit(column: &Column, is_old: bool) -> Fit {
    if ["MATERIALIZED", "ALIAS"].contains(&column.default_type.as_str()) {
        return Fit::Not(format!("is computed ({}), and cannot be inserted", column.default_type));
    }
    let kind = without_wrappers(&column.kind);
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| kind.starts_with(beginning));
    let (is_text, is_any) = (begins(&["String", "FixedString", "Enum"]), begins(&["Variant", "Dynamic"]));
    let (fit, wanted) = match column.name.as_str() {
        "value" if is_text && is_old => (None, "Float64: this version takes no numbers into texts"),
        "value" if begins(&["Int", "UInt"]) => {
            (Some(Fit::But("holds whole numbers only: readings with others are refused")), "")
        }
        "value" => {
            let is_number = begins(&["Float", "BFloat", "Decimal", "Bool"]);
            ((is_number || is_text).then_some(Fit::Good), "Float64 for numbers, or String for all values")
        }
        "time" if kind == "DateTime" || kind.starts_with("DateTime(") => {
            (Some(Fit::But("keeps whole seconds only; DateTime64(9, 'UTC') keeps all")), "")
        }
        "time" => {
            ((is_text || begins(&["DateTime64"])).then_some(Fit::Good), "DateTime64(9, 'UTC') or String")
        }
        "tags" if is_old => (None, "left out: this version has no type for them"),
        "tags" => {
            ((is_text || begins(&["Map(", "JSON", "Object("])).then_some(Fit::Good), "Map(String, String)")
        }
        _ => (is_text.then_some(Fit::Good), "String"),
    };
    match fit {
        Some(fit) => fit,
        None if is_any => Fit::Good,
        None => Fit::Not(format!("is {}, and must be {wanted}", excerpt(&column.kind))),
    }
}

/// The type inside `Nullable(…)` and `LowCardinality(…)`.
fn without_wrappers(kind: &str) -> &str {
    let mut inner = kind.trim();
    while let Some(rest) =
        ["Nullable(", "LowCardinality("].iter().find_map(|wrapper| inner.strip_prefix(wrapper))
    {
        inner = rest.strip_suffix(')').unwrap_or(rest);
    }
    inner
}

/// The statement that creates a table for all readings that this version can hold.
///
/// The text column keeps every value as it was sent, and `number` the numeric ones. Old versions cannot insert numbers into
/// texts, and have no type for times with fractions or for tags.
pub(super) fn create(table: &str, is_old: bool) -> String {
    let (columns, rest): (&[&str], _) = if is_old {
        (
            &["device String", "sensor String", "value Float64", "time String", "unit String"],
            "ENGINE = ReplacingMergeTree PARTITION BY substring(time, 1, 7) ORDER BY (device, sensor, time)",
        )
    } else {
        (
            &[
                "device LowCardinality(String)",
                "sensor LowCardinality(String)",
                "value String",
                "number Nullable(Float64) MATERIALIZED toFloat64OrNull(value)",
                "time DateTime64(9, 'UTC')",
                "unit LowCardinality(String)",
                "tags Map(LowCardinality(String), String)",
            ],
            "ENGINE = MergeTree ORDER BY (sensor, device, time) SETTINGS non_replicated_deduplication_window = 1000",
        )
    };
    format!("CREATE TABLE {table} (\n  {}\n) {rest}", columns.join(",\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description with these types, in the form of old versions if `is_old`.
    fn describe(types: &[(&str, &str)], is_old: bool) -> String {
        let ttl = if is_old { "" } else { r#","codec_expression":"","ttl_expression":"""# };
        let line = |(name, kind): &(&str, &str)| {
            let kind = serde_json::Value::from(*kind);
            format!(
                "{{\"name\":\"{name}\",\"type\":{kind},\"default_type\":\"\",\"default_expression\":\"\"{ttl}}}\n"
            )
        };
        types.iter().map(line).collect()
    }

    const FULL: [(&str, &str); 6] = [
        ("device", "LowCardinality(String)"),
        ("sensor", "LowCardinality(Nullable(String))"),
        ("value", "Float64"),
        ("time", "DateTime64(9, 'UTC')"),
        ("unit", "Nullable(String)"),
        ("tags", "Map(LowCardinality(String), String)"),
    ];

    /// Judges the full table with another type for one column, or without that column.
    fn judged(name: &str, kind: Option<&str>, is_old: bool) -> Result<String, String> {
        let with = |(known, usual): (&'static str, &'static str)| match known == name {
            true => Some((known, kind?.to_owned())),
            false => Some((known, usual.to_owned())),
        };
        let types: Vec<(&str, String)> = FULL.into_iter().filter_map(with).collect();
        let types: Vec<_> = types.iter().map(|(name, kind)| (*name, kind.as_str())).collect();
        judge("`d`.`t`", &columns(&describe(&types, is_old)).expect("columns"))
    }

    #[test]
    fn a_table_with_columns_that_fit_is_good() {
        let good = Ok("has the table `d`.`t`".to_owned());
        for (name, kind) in FULL {
            assert_eq!(judged(name, Some(kind), false), good);
        }
        for (name, kind) in [
            ("value", "String"),
            ("value", "Variant(Bool, Int64, Float64, String)"),
            ("value", "Decimal(38, 10)"),
            ("time", "String"),
            ("time", "Nullable(DateTime64(3))"),
            ("tags", "JSON"),
            ("device", "Enum8('a' = 1)"),
        ] {
            assert_eq!(judged(name, Some(kind), false), good, "{name} {kind}");
        }
    }

    #[test]
    fn losses_in_a_table_are_reported() {
        let check = |name: &str, kind: Option<&str>, expected: &str| {
            let told = judged(name, kind, false).expect("it takes readings");
            assert!(told.contains(expected), "{told}");
        };
        check("time", Some("DateTime"), "`time` keeps whole seconds only");
        check("time", Some("DateTime('UTC')"), "`time` keeps whole seconds only");
        check("value", Some("Int64"), "`value` holds whole numbers only");
        check("unit", None, "without a column `unit`, readings that have one are refused");
        check("tags", None, "without a column `tags`, readings that have any are refused");
    }

    #[test]
    fn missing_and_unfit_columns_are_reported_with_what_to_do() {
        let check = |name: &str, kind: Option<&str>, is_old: bool, expected: &str| {
            let told = judged(name, kind, is_old).expect_err("it takes no readings");
            assert!(told.starts_with("the table `d`.`t` cannot take readings:\n"), "{told}");
            assert!(told.contains(expected), "{told}");
        };
        let add = "what is missing: ALTER TABLE `d`.`t` ADD COLUMN";
        check("device", None, false, &format!("{add} `device` String"));
        check("time", None, false, &format!("{add} `time` DateTime64(9, 'UTC')"));
        check("time", None, true, &format!("{add} `time` String"));
        check("value", None, false, &format!("{add} `value` Float64"));
        check("value", Some("Date"), false, "`value` is Date, and must be Float64 for numbers, or String");
        check(
            "value",
            Some("String"),
            true,
            "`value` is String, and must be Float64: this version takes no numbers",
        );
        check("time", Some("Date"), false, "`time` is Date, and must be DateTime64(9, 'UTC') or String");
        check("time", Some("UInt64"), false, "`time` is UInt64, and must be");
        check(
            "tags",
            Some("Array(String)"),
            false,
            "`tags` is Array(String), and must be Map(String, String)",
        );
        check("sensor", Some("UInt8\u{1b}\n"), false, "`sensor` is UInt8, and must be String");
        let computed =
            describe(&FULL, false).replacen("\"default_type\":\"\"", "\"default_type\":\"ALIAS\"", 1);
        let told = judge("t", &columns(&computed).expect("columns")).expect_err("it takes no readings");
        assert!(told.contains("`device` is computed (ALIAS), and cannot be inserted"), "{told}");
    }

    #[test]
    fn a_text_that_is_not_a_description_is_not_read() {
        for text in ["", "\n", "Ok.\n", "<html>", "{}", "[]", "{\"name\":\"a\"}", "1"] {
            assert!(columns(text).is_none(), "{text}");
        }
    }
}
