use super::*;
use crate::delivery::breaker::BreakerState;
use crate::delivery::node_status::NodeHealth;
use crate::delivery::transport::RetryReason;

const PROBE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const TOOK: Duration = Duration::from_millis(5);

const CONFIG: NodesConfig = NodesConfig {
    health: HealthConfig { failures: 2, failure_ratio: 0.5, probe: PROBE, max_ejected: 0.9 },
    max_in_flight: 2,
    timeout: TIMEOUT,
};

const FAILED: AnswerVerdict = AnswerVerdict::Retry(RetryReason::ServerError);
const BUSY: AnswerVerdict = AnswerVerdict::Retry(RetryReason::Busy);

fn nodes_with(count: usize, config: NodesConfig) -> (ClusterNodes, Instant) {
    let sources: Vec<NodeSource> = (0..count)
        .map(|index| format!("http://user:secret@node-{index}/x?token=1").parse().expect("a URL"))
        .map(NodeSource::Address)
        .collect();
    let now = Instant::now();
    (ClusterNodes::new(&sources, config, now), now)
}

fn nodes(count: usize) -> (ClusterNodes, Instant) {
    nodes_with(count, CONFIG)
}

fn with_share(max_ejected: f64) -> NodesConfig {
    NodesConfig { health: HealthConfig { max_ejected, ..CONFIG.health }, ..CONFIG }
}

fn answer(verdict: AnswerVerdict) -> Answer {
    Answer { verdict, ..Answer::internal("500: out of order".to_owned()) }
}

/// Sends a batch and records its answer; returns whether the node has just recovered.
fn send(nodes: &mut ClusterNodes, node: usize, verdict: AnswerVerdict, now: Instant) -> bool {
    nodes.on_sent(NodeIndex(node), Attempt::First, now);
    receive(nodes, node, verdict, now)
}

fn receive(nodes: &mut ClusterNodes, node: usize, verdict: AnswerVerdict, now: Instant) -> bool {
    nodes.on_answer(NodeIndex(node), &answer(verdict), TOOK, now, Duration::MAX)
}

fn take_down(nodes: &mut ClusterNodes, node: usize, now: Instant) {
    send(nodes, node, AnswerVerdict::Misconfigured, now);
}

fn leave_alone(nodes: &mut ClusterNodes, node: usize, wait: Duration, now: Instant) {
    nodes.on_sent(NodeIndex(node), Attempt::First, now);
    let answer = Answer { retry_after: Some(wait), ..answer(AnswerVerdict::Delivered) };
    nodes.on_answer(NodeIndex(node), &answer, TOOK, now, Duration::MAX);
}

fn free(nodes: &ClusterNodes, attempt: Attempt, now: Instant) -> Vec<usize> {
    nodes.candidates(&[], attempt, now).iter().map(|candidate| candidate.node.0).collect()
}

fn any_up(nodes: &ClusterNodes) -> bool {
    nodes.present().any(|node| nodes.get(node).breaker.is_closed())
}

fn ejected(nodes: &ClusterNodes) -> Vec<usize> {
    nodes.present().filter(|node| nodes.is_ejected(*node)).map(|node| node.0).collect()
}

#[test]
fn a_node_is_a_candidate_while_it_is_below_its_limit_and_asked_for_no_wait() {
    let (mut nodes, now) = nodes(3);
    (0..2).for_each(|_| nodes.on_sent(NodeIndex(0), Attempt::First, now));
    leave_alone(&mut nodes, 1, PROBE, now);
    nodes.on_sent(NodeIndex(2), Attempt::First, now);
    assert_eq!(free(&nodes, Attempt::First, now), [2]);
    assert_eq!(nodes.next_change(now), Some(now + PROBE));
    assert_eq!(free(&nodes, Attempt::First, now + PROBE), [1, 2]);
    assert_eq!(nodes.next_change(now + PROBE), None);
    // The limit adapts: an overloaded node takes fewer batches.
    nodes.on_sent(NodeIndex(2), Attempt::First, now);
    receive(&mut nodes, 2, BUSY, now);
    assert_eq!(free(&nodes, Attempt::First, now + PROBE), [1]);
}

#[test]
fn the_longest_requested_wait_holds() {
    let (mut nodes, now) = nodes(1);
    leave_alone(&mut nodes, 0, PROBE * 3, now);
    leave_alone(&mut nodes, 0, PROBE, now);
    send(&mut nodes, 0, AnswerVerdict::Delivered, now);
    assert_eq!(nodes.next_change(now), Some(now + PROBE * 3));
    nodes.ask_all(now);
    assert_eq!((free(&nodes, Attempt::First, now), nodes.next_change(now)), (vec![0], None));
}

#[test]
fn a_candidate_shows_whether_its_node_had_the_batch_and_is_up() {
    let (mut nodes, now) = nodes_with(2, with_share(0.0));
    take_down(&mut nodes, 0, now);
    let candidates = nodes.candidates(&[NodeIndex(1)], Attempt::First, now);
    let seen: Vec<_> = candidates.iter().map(|one| (one.node.0, one.up, one.tried)).collect();
    assert_eq!(seen, [(0, false, false), (1, true, true)]);
    assert!(candidates[0].latency_seconds >= TIMEOUT.as_secs_f64(), "a failure counts as a long latency");
    assert!(any_up(&nodes));
    take_down(&mut nodes, 1, now);
    assert!(!any_up(&nodes));
}

#[test]
fn a_node_that_is_down_gets_one_batch_as_its_trial_after_its_pause() {
    let (mut nodes, now) = nodes(3);
    (0..2).for_each(|_| nodes.on_sent(NodeIndex(0), Attempt::First, now));
    receive(&mut nodes, 0, FAILED, now);
    assert_eq!(ejected(&nodes), [0_usize; 0]);
    send(&mut nodes, 0, FAILED, now);
    assert_eq!((ejected(&nodes), free(&nodes, Attempt::First, now)), (vec![0], vec![1, 2]));

    let due = now + PROBE;
    assert_eq!(nodes.trial(&[], due), None, "one that was sent before is still on its way");
    receive(&mut nodes, 0, FAILED, now);
    assert_eq!((nodes.trial(&[], now), nodes.next_change(now)), (None, Some(due)));
    assert_eq!(nodes.trial(&[NodeIndex(0)], due), None, "the batch comes from there");
    assert_eq!(nodes.trial(&[NodeIndex(1)], due), Some(NodeIndex(0)));
    nodes.on_sent(NodeIndex(0), Attempt::Retry, due);
    assert_eq!(nodes.trial(&[], due + PROBE * 9), None, "one at a time");
    receive(&mut nodes, 0, FAILED, due);
    assert_eq!(nodes.next_change(due), Some(due + PROBE * 2), "the pause has doubled");
    nodes.on_sent(NodeIndex(0), Attempt::Retry, due + PROBE * 2);
    assert!(receive(&mut nodes, 0, AnswerVerdict::Delivered, due + PROBE * 2), "it is well again");
    assert_eq!((ejected(&nodes).len(), any_up(&nodes)), (0, true));
    assert_eq!(free(&nodes, Attempt::First, due + PROBE * 2), [0, 1, 2]);
}

#[test]
fn a_trial_waits_until_the_requested_wait_is_over() {
    let (mut nodes, now) = nodes(2);
    leave_alone(&mut nodes, 0, PROBE * 3, now);
    take_down(&mut nodes, 0, now);
    assert_eq!(nodes.trial(&[], now + PROBE), None);
    assert_eq!(nodes.trial(&[], now + PROBE * 3), Some(NodeIndex(0)));
    nodes.ask_all(now);
    assert_eq!(nodes.trial(&[], now), Some(NodeIndex(0)), "there is no later");
}

#[test]
fn a_failed_node_that_is_too_costly_to_be_chosen_still_gets_trials() {
    let (mut nodes, now) = nodes(2);
    send(&mut nodes, 0, FAILED, now);
    assert_eq!(free(&nodes, Attempt::First, now), [0, 1], "it is in use");
    assert_eq!((nodes.trial(&[], now), nodes.trial(&[], now + PROBE)), (None, Some(NodeIndex(0))));
    assert!(send(&mut nodes, 0, AnswerVerdict::Refused, now + PROBE), "what refuses a batch is well");
    assert_eq!(nodes.trial(&[], now + PROBE * 9), None);
    let costs: Vec<_> =
        nodes.candidates(&[], Attempt::First, now + PROBE).iter().map(|one| one.latency_seconds).collect();
    assert!(costs[0] < 0.01, "the fine is forgotten: {costs:?}");
    // The same for a node that is down and not ejected.
    let (mut nodes, now) = nodes_with(2, with_share(0.0));
    take_down(&mut nodes, 0, now);
    assert_eq!(nodes.trial(&[], now + PROBE), Some(NodeIndex(0)));
}

#[test]
fn at_most_the_share_is_ejected_in_the_order_in_which_nodes_went_down() {
    let (mut nodes, now) = nodes_with(4, with_share(0.5));
    for node in [3, 2, 0] {
        take_down(&mut nodes, node, now);
    }
    assert_eq!(ejected(&nodes), [2, 3]);
    let seen = |nodes: &ClusterNodes| nodes.status().nodes().iter().map(|node| node.up).collect::<Vec<_>>();
    assert_eq!(seen(&nodes), [false, true, false, false]);
    assert_eq!(free(&nodes, Attempt::First, now), [0, 1], "one beyond the share is asked");
    // Node 0 takes the place of node 2, which came up.
    send(&mut nodes, 2, AnswerVerdict::Delivered, now);
    assert_eq!(ejected(&nodes), [0, 3]);
}

#[test]
fn the_share_is_rounded_down_and_a_single_node_is_never_ejected() {
    let check = |present: usize, share: f64, expected: usize| {
        assert_eq!(ejected_max(present, share), expected, "{share} of {present}");
    };
    check(1, 0.9, 0);
    check(1, 1.0, 1);
    check(2, 0.9, 1);
    check(10, 0.9, 9);
    check(100, 0.29, 29);
    check(3, 0.5, 1);
    check(7, 0.0, 0);
    check(0, 1.0, 0);
    let (mut nodes, now) = nodes(1);
    take_down(&mut nodes, 0, now);
    assert_eq!((any_up(&nodes), free(&nodes, Attempt::Retry, now)), (false, vec![0]));
}

#[test]
fn if_all_nodes_may_be_ejected_a_batch_may_return_to_the_same_node() {
    let (mut nodes, now) = nodes_with(1, with_share(1.0));
    take_down(&mut nodes, 0, now);
    assert_eq!(free(&nodes, Attempt::First, now).len(), 0);
    assert_eq!(nodes.trial(&[NodeIndex(0)], now + PROBE), Some(NodeIndex(0)), "there is nowhere else");
    // The same if all other nodes asked to be left alone.
    let (mut nodes, now) = self::nodes(2);
    leave_alone(&mut nodes, 1, PROBE * 2, now);
    take_down(&mut nodes, 0, now);
    assert_eq!(nodes.trial(&[NodeIndex(0)], now + PROBE), Some(NodeIndex(0)));
    assert_eq!(nodes.trial(&[NodeIndex(0)], now + PROBE * 2), None);
}

#[test]
fn the_availability_changes_with_the_set_of_usable_nodes() {
    let (mut nodes, now) = nodes_with(3, with_share(0.4));
    let start = nodes.availability();
    send(&mut nodes, 0, FAILED, now);
    send(&mut nodes, 1, AnswerVerdict::Delivered, now);
    assert_eq!(nodes.availability(), start, "nobody is ejected");
    take_down(&mut nodes, 0, now);
    let first = nodes.availability();
    assert_ne!(first, start);
    take_down(&mut nodes, 1, now);
    assert_eq!(nodes.availability(), first, "down, and asked all the same");
    send(&mut nodes, 1, AnswerVerdict::Delivered, now + PROBE);
    send(&mut nodes, 0, FAILED, now + PROBE);
    assert_eq!(nodes.availability(), first, "a trial that failed changes nothing");
    send(&mut nodes, 0, AnswerVerdict::Delivered, now + PROBE * 9);
    assert_ne!(nodes.availability(), first);
}

#[test]
fn retries_beyond_the_budget_wait_and_first_attempts_go_on() {
    let (mut nodes, now) = nodes(1);
    let retry = |nodes: &mut ClusterNodes, verdict: AnswerVerdict, now: Instant| {
        nodes.on_sent(NodeIndex(0), Attempt::Retry, now);
        receive(nodes, 0, verdict, now);
    };
    let mut retries = 0;
    while free(&nodes, Attempt::Retry, now) == [0] {
        retry(&mut nodes, AnswerVerdict::Refused, now);
        retries += 1;
    }
    assert_eq!(retries, 100);
    assert_eq!(free(&nodes, Attempt::First, now), [0]);
    let next = nodes.next_change(now).expect("a token comes");
    assert_eq!(free(&nodes, Attempt::Retry, next), [0]);
    retry(&mut nodes, AnswerVerdict::Delivered, next);
    assert_eq!(free(&nodes, Attempt::Retry, next).len(), 0);
    for _ in 0..4 {
        send(&mut nodes, 0, AnswerVerdict::Delivered, next);
    }
    assert_eq!(free(&nodes, Attempt::Retry, next), [0], "five deliveries pay for a retry");
    retry(&mut nodes, AnswerVerdict::Refused, next);
    nodes.ask_all(next);
    assert_eq!((free(&nodes, Attempt::Retry, next), nodes.next_change(next)), (vec![0], None), "a drain");
}

#[test]
fn the_status_is_up_to_date_and_shows_no_secrets() {
    let (mut nodes, now) = nodes(2);
    let status = Arc::clone(nodes.status());
    let seen = || status.nodes().remove(0);
    assert_eq!((seen().id.as_str(), seen().url.as_str()), ("node-0:80", "http://node-0:80/x"));
    assert_eq!((seen().up, seen().breaker, seen().last_error), (true, BreakerState::Closed, None));
    nodes.on_sent(NodeIndex(0), Attempt::First, now);
    assert_eq!((seen().in_flight, seen().in_flight_limit), (1, 2));
    receive(&mut nodes, 0, AnswerVerdict::Misconfigured, now);
    let until = now + PROBE;
    assert_eq!((seen().up, seen().ejected, seen().breaker), (false, true, BreakerState::Open { until }));
    assert_eq!(seen().reason.as_deref(), Some("500: out of order"));
    assert_eq!((seen().health(), seen().failing), (NodeHealth::Down, true));
    assert_eq!(seen().latency_seconds(), None, "a penalty is no latency");
    nodes.on_sent(NodeIndex(0), Attempt::First, until);
    assert_eq!(seen().breaker, BreakerState::HalfOpen);
    receive(&mut nodes, 0, AnswerVerdict::Delivered, until);
    assert_eq!((seen().up, seen().ejected, seen().reason), (true, false, None));
    let failure = NodeFailure { text: "500: out of order".into(), at: now };
    assert_eq!(seen().last_error, Some(failure), "it stays after the node has recovered");
    assert_eq!(seen().oldest_waiting_age(now), Duration::ZERO);
    nodes.set_oldest_waiting(|node| (node.0 == 0).then_some(now));
    send(&mut nodes, 0, AnswerVerdict::Delivered, until);
    assert_eq!(seen().oldest_waiting_age(now + PROBE * 3), PROBE * 3);
}

#[test]
fn a_node_is_failing_until_its_next_success_and_its_latency_counts_only_answers() {
    let (mut nodes, now) = nodes(2);
    let status = Arc::clone(nodes.status());
    let seen = || (status.nodes()[0].health(), status.nodes()[0].up, status.nodes()[0].latency_seconds());
    let answer = |verdict, status| Answer { verdict, status, ..Answer::internal("words".to_owned()) };
    let took = Duration::from_millis(20);
    let receive = |nodes: &mut ClusterNodes, verdict, status| {
        nodes.on_sent(NodeIndex(0), Attempt::First, now);
        nodes.on_answer(NodeIndex(0), &answer(verdict, status), took, now, PROBE);
    };
    assert_eq!(seen(), (NodeHealth::Up, true, None));
    let refused = AnswerVerdict::Retry(RetryReason::Connect);
    receive(&mut nodes, refused, None);
    assert_eq!(seen(), (NodeHealth::Failing, true, None), "no answer is no measurement");
    receive(&mut nodes, AnswerVerdict::Refused, None);
    for (verdict, status) in
        [(AnswerVerdict::Delivered, 200), (AnswerVerdict::Refused, 400), (AnswerVerdict::TooLarge, 413)]
    {
        receive(&mut nodes, refused, None);
        assert_eq!(seen().0, NodeHealth::Failing);
        receive(&mut nodes, verdict, Some(status));
        assert_eq!(seen(), (NodeHealth::Up, true, Some(0.02)), "{verdict:?}");
    }
    receive(&mut nodes, AnswerVerdict::Misconfigured, Some(404));
    assert_eq!(seen(), (NodeHealth::Down, false, Some(0.02)));
}
