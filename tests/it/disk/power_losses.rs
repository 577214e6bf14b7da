//! Random histories with power losses.

use super::*;

/// Promises and observations of a run over many power losses.
#[derive(Default)]
struct Promises {
    /// Acknowledged and not settled.
    owed: BTreeSet<i64>,
    /// The readings of each key.
    keys: BTreeMap<String, Vec<i64>>,
}

#[tokio::test]
async fn over_many_power_losses_nothing_acknowledged_is_lost_and_a_key_keeps_its_readings() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let site = Site::new(seed);
    let mut promises = Promises::default();
    let mut next = 0;
    for round in 0..rounds(16, 40) {
        let mut running = site.open(1 << 20);
        let mut waiting = check_start(&mut running, &mut promises).await;
        let mut is_full = false;
        for step in 0..random.usize(..30) {
            match random.u8(..3) {
                0 => {
                    let count = random.i64(1..200);
                    if running.push(next..next + count, Ack::Disk).await.is_ok() {
                        promises.owed.extend(next..next + count);
                        let (found, parts) =
                            running.pull_readings(usize::try_from(count).expect("few")).await;
                        assert_eq!(found, (next..next + count).collect::<Vec<_>>());
                        waiting.push((parts, None));
                    }
                    next += count;
                }
                1 => {
                    let key = format!("key-{round}-{step}");
                    let open = waiting.iter_mut().find(|(_, note)| note.is_none());
                    let Some((parts, note)) = open else { continue };
                    *note = running.note(&key, parts).await;
                    promises.keys.insert(key, parts.iter().flat_map(numbers).collect());
                }
                _ if !waiting.is_empty() => {
                    let (parts, note) = waiting.swap_remove(random.usize(..waiting.len()));
                    for number in parts.iter().flat_map(numbers) {
                        assert!(promises.owed.remove(&number), "{number} was owed");
                    }
                    running.deliver(parts, note);
                    // After the loss only records on disk are known.
                    let synced = running.push(-1..0, Ack::Disk).await;
                    is_full = matches!(synced, Err(PushError::Full { .. }));
                    if is_full {
                        break;
                    }
                    synced.expect("a sound disk");
                    let (_, parts) = running.pull_readings(1).await;
                    running.deliver(parts, None);
                }
                _ => {}
            }
        }
        drop(waiting);
        if random.bool() && !is_full { site.lose_power(running).await } else { running.close().await }
    }
}

/// After a start every owed reading is there once, and otherwise only readings that had not been acknowledged.
async fn check_start(running: &mut Running, promises: &mut Promises) -> Vec<(Vec<Part>, Option<NoteId>)> {
    let mut waiting = Vec::new();
    let mut found = BTreeSet::new();
    for Resumed { key, note, parts } in running.outlet.resumed() {
        let numbers: Vec<i64> = parts.iter().flat_map(numbers).collect();
        assert_eq!(promises.keys.get(&key), Some(&numbers), "{key}");
        waiting.push((parts, Some(note), numbers));
    }
    let resumed: usize = waiting.iter().map(|(_, _, numbers)| numbers.len()).sum();
    let rest = usize::try_from(running.recovered()).expect("few") - resumed;
    let (_, parts) = running.pull_readings(rest).await;
    for part in parts {
        let numbers = numbers(&part);
        waiting.push((vec![part], None, numbers));
    }
    for number in waiting.iter().flat_map(|(_, _, numbers)| numbers) {
        assert!(*number == -1 || found.insert(*number), "{number} is there once");
    }
    assert!(found.is_superset(&promises.owed), "lost: {:?}", promises.owed.difference(&found).take(5));
    promises.owed = found;
    // Requests that served to make others durable are settled.
    let (fillers, waiting): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|(_, _, numbers)| numbers.as_slice() == [-1]);
    for (parts, note, _) in fillers {
        running.deliver(parts, note);
    }
    waiting.into_iter().map(|(parts, note, _)| (parts, note)).collect()
}
