use super::*;

#[test]
fn what_is_stored_in_part_is_known_whatever_stops_the_rest() {
    let item = |index| FailedItem { index, status: 403, detail: String::new(), blame: None };
    let judged = |failed: Vec<FailedItem>| {
        judge_items(Answer { verdict: Verdict::Delivered, ..Answer::internal(String::new()) }, Ok(failed), 3)
    };
    let in_part = judged(vec![item(0), item(2)]);
    assert_eq!((in_part.verdict, in_part.is_stored_in_part), (Verdict::Misconfigured, true));
    let not_at_all = judged((0..3).map(item).collect());
    assert_eq!((not_at_all.verdict, not_at_all.is_stored_in_part), (Verdict::Misconfigured, false));
}

#[test]
fn each_status_means_what_the_contract_says() {
    let check = |statuses: &[u16], expected: Verdict| {
        for status in statuses {
            let status = StatusCode::from_u16(*status).expect("a status");
            assert_eq!(classify(status), expected, "{status}");
        }
    };
    check(&[200, 201, 202, 204, 299], Verdict::Delivered);
    check(&[408, 409, 425, 429, 503], Verdict::Retry(RetryReason::Busy));
    check(&[500, 502, 504, 507, 599], Verdict::Retry(RetryReason::ServerError));
    check(&[413], Verdict::TooLarge);
    check(&[400, 422], Verdict::Refused);
    check(
        &[401, 403, 404, 405, 501, 508, 301, 302, 307, 308, 304, 402, 410, 415, 418],
        Verdict::Misconfigured,
    );
}
