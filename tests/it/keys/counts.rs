//! The readings of each key are counted when the ledger counts them.

use super::*;
use crate::support::{Answer, Gate};

/// The readings that the ledger has accepted, and those that are counted for the key `any`.
async fn accepted(setup: &Setup) -> (u64, u64) {
    let status = setup.get_as("operator", "/status").await.expect_status(200).json();
    let key = status["keys"].as_array().expect("keys").iter().find(|key| key["name"] == "any").cloned();
    let count = |value: &serde_json::Value| value["accepted"].as_u64().expect("a number");
    (count(&status["ledger"]), count(&key.expect("the key")))
}

#[tokio::test]
async fn readings_whose_client_hangs_up_before_the_answer_count_for_their_key() {
    for idempotency_key in ["", "Idempotency-Key: 1\r\n"] {
        let setup = Setup::start(|gateway| gateway).await;
        let gate = Gate::default();
        setup.node.answer_otherwise(Answer::status(200).behind(&gate));
        let mut client = setup.gateway.raw().await;
        let head = format!(
            "POST /v1/readings?ack=delivered HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key of any\r\n\
             Content-Length: {}\r\n{idempotency_key}\r\n",
            ONE.len()
        );
        client.send(head + ONE).await;
        eventually("the reading is accepted", || async { accepted(&setup).await.0 == 1 }).await;
        assert_eq!(accepted(&setup).await, (1, 1), "the request still waits");
        drop(client);
        gate.open();
        eventually("the reading arrives", || async { setup.node.count() == 1 }).await;
        assert_eq!(accepted(&setup).await, (1, 1), "{idempotency_key}");
    }
}

#[tokio::test]
async fn readings_that_are_accepted_and_that_nodes_refuse_count_for_their_key() {
    let setup = Setup::start(|gateway| gateway).await;
    setup.node.answer_otherwise(Answer::status(422));
    let headers = [("x-api-key", "key of any")];
    setup.post("/v1/readings?ack=delivered", &headers, ONE).await.expect_problem(422);
    assert_eq!(accepted(&setup).await, (1, 1));
}

#[tokio::test]
async fn readings_that_find_no_room_do_not_count_for_their_key() {
    let setup = Setup::start(|gateway| gateway.set("buffer.max_readings", 1)).await;
    setup.node.answer_otherwise(Answer::status(503));
    setup.post_as("any", ONE).await.expect_status(202);
    setup.post_as("any", ONE).await.expect_problem(503);
    assert_eq!(accepted(&setup).await, (1, 1));
}
