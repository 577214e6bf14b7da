//! Findings from ClickHouse's answers to trials.

use super::errors;
use super::table;
use crate::diagnosis::said;
use crate::{Blame, NodeAnswer, diagnose_status};

/// The table, by its quoted names.
#[derive(Debug)]
pub(super) struct TableName {
    pub(super) database: String,
    pub(super) table: String,
}

impl TableName {
    /// The table's full name.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }
}

/// The finding from the answer to a description of the table, or to an insert of nothing.
pub(super) fn diagnose(place: &TableName, answer: &NodeAnswer<'_>) -> Result<String, String> {
    if let Some(code) = errors::code(answer) {
        return Err(of_code(place, code, answer));
    }
    let is_success = (200..300).contains(&answer.status);
    if !is_success {
        return diagnose_status(answer);
    }
    if answer.body.trim().is_empty() {
        return Ok("takes inserts".to_owned());
    }
    match table::columns(answer.body) {
        Some(columns) => table::judge(&place.name(), &columns),
        None => Err(format!(
            "does not answer as ClickHouse does; the address is that of its HTTP interface, such as \
             http://127.0.0.1:8123/{}",
            said(answer)
        )),
    }
}

fn of_code(place: &TableName, code: u32, answer: &NodeAnswer<'_>) -> String {
    let table = place.name();
    // Old versions have another form of messages.
    let create = table::create(&table, answer.body.contains("e.displayText()"));
    match code {
        60 => format!("has no table {table}; this makes one:\n{create}"),
        81 => format!("has no database {0}; these make it:\nCREATE DATABASE {0}\n{create}", place.database),
        89 => format!("does not know this compression: set cluster.compression to gzip{}", said(answer)),
        115 if answer.body.contains("insert_deduplication_token") => {
            "does not know insert_deduplication_token, as no version before 22.2 does: set \
             cluster.clickhouse.deduplication_token to false"
                .to_owned()
        }
        115 | 452 => format!("refuses a setting of the format or of the node's address{}", said(answer)),
        164 => format!("lets this user read only; it needs INSERT on {table}{}", said(answer)),
        192..=195 | 516 => {
            format!(
                "refuses the credentials (code {code}): set x-clickhouse-user and x-clickhouse-key in [cluster.headers]{}",
                said(answer)
            )
        }
        291 | 497 => {
            format!("lets this user not do it: GRANT INSERT, SHOW COLUMNS ON {table} TO …{}", said(answer))
        }
        _ => match errors::blame(answer) {
            Some(Blame::Setup) => format!("is set up wrongly (code {code}){}", said(answer)),
            Some(Blame::Readings | Blame::Node) | None => format!("fails (code {code}){}", said(answer)),
        },
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: Result<&str, &str>) {
        let place = TableName { database: "`d`".to_owned(), table: "`t`".to_owned() };
        let told = diagnose(&place, &NodeAnswer { status, headers: &HeaderMap::new(), body });
        match (&told, expected) {
            (Ok(told), Ok(expected)) => assert_eq!(told, expected),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{told}"),
            _ => panic!("{told:?} is not {expected:?}"),
        }
    }

    #[test]
    fn each_error_has_words_that_say_what_to_do() {
        check(200, "", Ok("takes inserts"));
        let old = "Code: 60, e.displayText() = DB::Exception: Table d.t doesn't exist.";
        check(
            404,
            old,
            Err("has no table `d`.`t`; this makes one:\nCREATE TABLE `d`.`t` (\n  device String,"),
        );
        check(
            404,
            "Code: 60. DB::Exception: Unknown table",
            Err("  value String,\n  number Nullable(Float64)"),
        );
        check(
            404,
            "Code: 81. DB::Exception: x",
            Err("has no database `d`; these make it:\nCREATE DATABASE `d`\nCREATE"),
        );
        let unknown =
            "Code: 115, e.displayText() = DB::Exception: Unknown setting insert_deduplication_token";
        check(404, unknown, Err("set cluster.clickhouse.deduplication_token to false"));
        check(404, "Code: 115. DB::Exception: Unknown setting x", Err("refuses a setting"));
        check(500, "Code: 89, e.displayText() = DB::Exception: zstd", Err("set cluster.compression to gzip"));
        check(
            500,
            "Code: 164. DB::Exception: readonly",
            Err("lets this user read only; it needs INSERT on `d`.`t`"),
        );
        check(
            401,
            "Code: 193. DB::Exception: Wrong password",
            Err("set x-clickhouse-user and x-clickhouse-key"),
        );
        check(403, "Code: 516. DB::Exception: x", Err("refuses the credentials (code 516)"));
        check(
            403,
            "Code: 497. DB::Exception: x",
            Err("GRANT INSERT, SHOW COLUMNS ON `d`.`t` TO …; it says: Code: 497"),
        );
        check(400, "Code: 62. DB::Exception: x", Err("is set up wrongly (code 62)"));
        check(500, "Code: 241. DB::Exception: x", Err("fails (code 241)"));
        check(200, "Code: 241. DB::Exception: x", Err("fails (code 241)"));
        check(401, "who?", Err("refuses the credentials, or wants some; see cluster.headers (401)"));
        check(200, "<html>", Err("does not answer as ClickHouse does"));
    }
}
