//! ClickHouse's error codes, which say more than the status.
//!
//! The codes come from `src/Common/ErrorCodes.cpp` in its sources; the status of the same error has changed over the years.

use crate::{Blame, NodeAnswer};

/// Header with the code, in newer versions.
const CODE_HEADER: &str = "x-clickhouse-exception-code";
/// Mark before an exception in a body that was begun as a success, in newer versions.
const EXCEPTION_MARK: &str = "__exception__";
/// Words of a message about a field without a column, before the name of the field.
const UNKNOWN_FIELD: &str = "Unknown field found while parsing JSONEachRow format: ";

/// Codes for readings that will never fit.
const READINGS: &[u32] = &[
    6,   // CANNOT_PARSE_TEXT
    25,  // CANNOT_PARSE_ESCAPE_SEQUENCE
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    53,  // TYPE_MISMATCH
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA
    130, // CANNOT_READ_ARRAY_FROM_TEXT
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    376, // CANNOT_PARSE_UUID
    395, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
    407, // DECIMAL_OVERFLOW
    441, // CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
    467, // CANNOT_PARSE_BOOL
    469, // VIOLATED_CONSTRAINT
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// Codes that every batch would get until someone changes the setup.
const SETUP: &[u32] = &[
    8,   // THERE_IS_NO_COLUMN
    10,  // NOT_FOUND_COLUMN_IN_BLOCK
    15,  // DUPLICATE_COLUMN
    16,  // NO_SUCH_COLUMN_IN_TABLE
    36,  // BAD_ARGUMENTS
    44,  // ILLEGAL_COLUMN
    46,  // UNKNOWN_FUNCTION
    47,  // UNKNOWN_IDENTIFIER
    48,  // NOT_IMPLEMENTED
    50,  // UNKNOWN_TYPE
    56,  // UNKNOWN_STORAGE
    60,  // UNKNOWN_TABLE
    62,  // SYNTAX_ERROR
    73,  // UNKNOWN_FORMAT
    81,  // UNKNOWN_DATABASE
    89,  // UNKNOWN_COMPRESSION_METHOD
    115, // UNKNOWN_SETTING
    164, // READONLY
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    195, // IP_ADDRESS_NOT_ALLOWED
    291, // DATABASE_ACCESS_DENIED
    452, // SETTING_CONSTRAINT_VIOLATION
    497, // ACCESS_DENIED
    511, // UNKNOWN_ROLE
    512, // SET_NON_GRANTED_ROLE
    516, // AUTHENTICATION_FAILED
];

/// Beginning of the message when the rows of one insert belong to too many partitions: the same rows would fail again, but
/// halves of them may succeed. The code (252) is also the one of too many parts, which passes.
const TOO_MANY_PARTITIONS: &str = "Too many partitions for single INSERT block";

/// Whose fault an answer is; `None` leaves the judgement to the status.
pub(super) fn blame(answer: &NodeAnswer<'_>) -> Option<Blame> {
    let is_success = (200..300).contains(&answer.status);
    match code(answer) {
        Some(117) if unknown_field(answer.body).is_some_and(is_in_every_row) => Some(Blame::Setup),
        Some(252) if message(answer.body).is_some_and(|text| text.starts_with(TOO_MANY_PARTITIONS)) => {
            Some(Blame::Readings)
        }
        Some(code) if READINGS.contains(&code) => Some(Blame::Readings),
        Some(code) if SETUP.contains(&code) => Some(Blame::Setup),
        // A success with an exception, or a code that does not blame the readings, must not cost any reading.
        Some(_) if is_success || matches!(answer.status, 400 | 422) => Some(Blame::Node),
        Some(_) => None,
        None if is_success && is_no_success(answer.body) => Some(Blame::Node),
        None => None,
    }
}

/// Whether a body shows that the insert failed after all, or is the page of another server. ClickHouse answers a success with
/// an empty body.
fn is_no_success(body: &str) -> bool {
    body.contains(EXCEPTION_MARK) || body.contains("DB::Exception") || body.trim_start().starts_with('<')
}

/// The code of the exception in an answer, from its header or the beginning of its body (`Code: 60, …`).
pub(super) fn code(answer: &NodeAnswer<'_>) -> Option<u32> {
    let header = answer.headers.get(CODE_HEADER).and_then(|code| code.to_str().ok()?.trim().parse().ok());
    header.or_else(|| {
        let body = answer.body.trim_start();
        let from = if body.starts_with(EXCEPTION_MARK) { body.find("Code: ")? } else { 0 };
        let digits = body[from..].strip_prefix("Code: ")?;
        let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    })
}

/// The message of an exception. Messages repeat contents of readings, but not at their beginning.
fn message(body: &str) -> Option<&str> {
    body.split_once("DB::Exception: ").map(|(_, message)| message)
}

/// The field of a reading that has no column in the table.
fn unknown_field(body: &str) -> Option<&str> {
    let rest = message(body)?.strip_prefix(UNKNOWN_FIELD)?;
    let end = rest.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// Whether every reading has this field, so that a table without it cannot take any.
fn is_in_every_row(field: &str) -> bool {
    ["device", "sensor", "value", "time"].contains(&field)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[track_caller]
    fn check(status: u16, header: Option<&'static str>, body: &str, expected: Option<Blame>) {
        let headers: HeaderMap = header
            .map(|code| (http::HeaderName::from_static(CODE_HEADER), http::HeaderValue::from_static(code)))
            .into_iter()
            .collect();
        assert_eq!(
            blame(&NodeAnswer { status, headers: &headers, body }),
            expected,
            "{status} {header:?} {body}"
        );
    }

    #[test]
    fn the_code_in_header_or_body_says_whose_fault_it_is() {
        // As version 18.16 answers.
        check(
            500,
            None,
            "Code: 27, e.displayText() = DB::Exception: Cannot parse input",
            Some(Blame::Readings),
        );
        check(
            400,
            None,
            "Code: 26, e.displayText() = DB::Exception: Cannot parse JSON string",
            Some(Blame::Readings),
        );
        check(500, None, "Code: 16, e.displayText() = DB::Exception: No such column", Some(Blame::Setup));
        check(
            404,
            None,
            "Code: 60, e.displayText() = DB::Exception: Table default.nope doesn't exist.",
            Some(Blame::Setup),
        );
        check(
            500,
            None,
            "Code: 89, e.displayText() = DB::Exception: Unknown Content-Encoding",
            Some(Blame::Setup),
        );
        check(500, None, "Code: 354, e.displayText() = DB::Exception: inflate failed", None);
        // As newer versions answer: the header overrides the body.
        check(400, Some("27"), "", Some(Blame::Readings));
        check(500, Some("469"), "Code: 60.", Some(Blame::Readings));
        check(403, Some("516"), "Code: 516. DB::Exception: Authentication failed", Some(Blame::Setup));
        check(500, Some("252"), "Code: 252. DB::Exception: Too many parts", None);
        check(400, Some("252"), "", Some(Blame::Node));
        let partitions =
            "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100).";
        check(500, Some("252"), partitions, Some(Blame::Readings));
        check(500, None, &format!("Code: 252. DB::Exception: Too many parts: '{TOO_MANY_PARTITIONS}'"), None);
        check(
            500,
            Some("691"),
            "Code: 691. DB::Exception: Unknown element 'x' for enum",
            Some(Blame::Readings),
        );
    }

    #[test]
    fn a_table_without_a_column_that_every_reading_has_is_set_up_wrongly() {
        let unknown = |field: &str| {
            format!("Code: 117, e.displayText() = DB::Exception: {UNKNOWN_FIELD}{field}: (at row 1)\n")
        };
        check(500, None, &unknown("tags"), Some(Blame::Readings));
        check(400, Some("117"), &unknown("unit"), Some(Blame::Readings));
        let feigned = format!("Code: 117. DB::Exception: Bad value: 'DB::Exception: {UNKNOWN_FIELD}value'");
        check(400, None, &feigned, Some(Blame::Readings));
        for field in ["device", "sensor", "value", "time"] {
            check(500, None, &unknown(field), Some(Blame::Setup));
        }
    }

    #[test]
    fn without_a_code_the_status_decides() {
        for status in [200, 204, 400, 401, 404, 413, 500, 503] {
            check(status, None, "", None);
            check(status, None, "Encoded: 27", None);
            check(status, Some("many"), "Code: ", None);
            check(status, None, "Code: 99999999999999999999", None);
        }
        check(502, None, "<html>", None);
    }

    #[test]
    fn a_success_with_an_exception_or_a_page_in_it_does_not_count() {
        check(200, None, "Code: 27. DB::Exception: Cannot parse input", Some(Blame::Readings));
        check(200, Some("241"), "", Some(Blame::Node));
        check(
            200,
            None,
            "\r\n__exception__\r\nabc\r\nCode: 241. DB::Exception: Memory limit",
            Some(Blame::Node),
        );
        check(200, None, "\r\n__exception__\r\nabc", Some(Blame::Node));
        check(200, None, "e.what() = DB::Exception", Some(Blame::Node));
        check(200, None, "<!DOCTYPE html>", Some(Blame::Node));
        check(200, None, "Ok.\n", None);
    }
}
