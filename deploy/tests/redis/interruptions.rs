//! Interrupted runs: the next run finishes the work, and no key is lost.

use std::fs;

use testkit::until;

use crate::creation::assert_nothing_to_do;
use crate::fixture::{RedisFixture, TIME_LIMIT};

/// Number of slots with keys. Some slots move with keys and most without, as in a sale.
const TAGS: usize = 20;
const KEYS_PER_TAG: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn next_run_finishes_growth_that_was_killed() {
    let mut fixture = cluster_of_three_pairs_with_keys().await;

    // When runs are killed at three points: before the keys of an open slot move, ...
    let sources = [0, 2, 4];
    for source in sources {
        assert_eq!(fixture.query(source, "CLIENT PAUSE 600000 WRITE").trim_end(), "OK");
    }
    kill_run_when(&fixture, async || open_slots(&fixture) > 0).await;
    assert!(open_slots(&fixture) > 0);
    for source in sources {
        assert_eq!(fixture.query(source, "CLIENT UNPAUSE").trim_end(), "OK");
    }

    // ... when the first slot has moved, ...
    kill_run_when(&fixture, async || slots_of(&fixture, 6) > 0).await;

    // ... and in the middle of many slots. Then a server of the new pair loses its data.
    kill_run_when(&fixture, async || slots_of(&fixture, 6) > 700).await;
    let moved = slots_of(&fixture, 6);
    assert!(moved < 4096, "{moved} slots had moved");
    let former_id = fixture.id(7);
    fixture.lose_data(7);
    fixture.start(7);
    fixture.wait_until_up(7).await;

    // Then the next run finishes, and no server knows the former id of server 7.
    fixture.cluster(4, &[]).await.assert_ok();
    assert_evenly_grown(&fixture).await;
    for number in 0..8 {
        assert!(
            !fixture.query(number, "CLUSTER NODES").contains(&former_id),
            "{number} still knows the former id"
        );
    }
}

/// Starts a run that grows the cluster to four pairs, and kills it at some point.
async fn kill_run_when(fixture: &RedisFixture, is_there: impl AsyncFn() -> bool) {
    let run = fixture.cluster_launch(4).spawn().unwrap();
    until("the point to kill the run", TIME_LIMIT, async || is_there().await || !run.is_running())
        .await
        .unwrap();
    assert!(run.is_running(), "it ended before it could be killed{}", run.log_tail());
    run.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_slot_move_continues_to_its_target() {
    let fixture = RedisFixture::with_cluster_of(3).await;
    write_keys(&fixture);
    let (from, to) = (0, 2);
    let slots = slots_with_keys(&fixture, from);
    let [importing, migrating, half_moved, assigned] = slots[..4] else {
        panic!("the first pair has too few slots with keys: {slots:?}")
    };
    let set = |server: u16, slot: u16, state: &str| {
        assert_eq!(fixture.query(server, &format!("CLUSTER SETSLOT {slot} {state}")).trim_end(), "OK");
    };
    let (from_id, to_id) = (fixture.id(from), fixture.id(to));

    // Given slots that were interrupted after each of the steps.
    for slot in [importing, migrating, half_moved, assigned] {
        set(to, slot, &format!("IMPORTING {from_id}"));
    }
    for slot in [migrating, half_moved, assigned] {
        set(from, slot, &format!("MIGRATING {to_id}"));
    }
    move_keys(&fixture, half_moved, KEYS_PER_TAG / 2);
    move_keys(&fixture, assigned, KEYS_PER_TAG);
    set(to, assigned, &format!("NODE {to_id}"));

    fixture.cluster(3, &[]).await.assert_ok();

    // Then all of them are on the target with their keys, and no slot is open.
    let target_slots = slots_with_keys(&fixture, to);
    assert!(
        [importing, migrating, half_moved, assigned].iter().all(|slot| target_slots.contains(slot)),
        "{slots:?} {target_slots:?}"
    );
    assert_eq!(open_slots(&fixture), 0);
    assert_keys_are_there(&fixture);
    assert_nothing_to_do(&fixture.cluster(3, &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_during_growth_lose_no_key() {
    // Given a cluster whose source's primary is replaced during growth, and another whose target's primary is.
    for replica in [1, 7] {
        let fixture = cluster_of_three_pairs_with_keys().await;
        let run = fixture.cluster_launch(4).spawn().unwrap();
        // A server without slots is not replaced.
        let moving = async || open_slots(&fixture) > 0 && serves(&fixture, 6);
        until("slots that move", TIME_LIMIT, moving).await.unwrap();
        fixture.fail_over_to(replica).await;
        let code = run.wait(TIME_LIMIT).await.unwrap().code();
        println!("during the promotion of {replica}: exit {code:?}{}", run.log_tail());

        // Then the next run finishes, also when both servers of the new pair serve slots by then.
        fixture.cluster(4, &[]).await.assert_ok();
        assert_evenly_grown(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_stop_moving_when_their_target_loses_its_replica() {
    let mut fixture = cluster_of_three_pairs_with_keys().await;
    let slots = || (0..TAGS).map(|tag| fixture.query(0, &format!("CLUSTER KEYSLOT {{{tag}}}")));
    let slots: Vec<String> = slots().map(|slot| slot.trim_end().to_owned()).collect();

    // When the new primary loses its replica's link while slots move, and fails after the run has ended.
    let run = fixture.cluster_launch(4).env("WAIT_LIMIT", "5s").spawn().unwrap();
    until("the first slots of the new pair", TIME_LIMIT, async || serves(&fixture, 6)).await.unwrap();
    for command in ["ACL SETUSER replica -psync -sync", "CLIENT KILL TYPE replica"] {
        fixture.query(6, command);
    }
    let code = run.wait(TIME_LIMIT).await.unwrap().code();
    let output = fs::read_to_string(run.log()).unwrap();
    fixture.kill(6);
    until("the promotion of its replica", TIME_LIMIT, async || fixture.leads(7)).await.unwrap();

    // Then no key is lost, except for a slot that the run reported as possibly without a copy.
    let lost: Vec<usize> = (0..TAGS).filter(|tag| !has_keys(&fixture, *tag, &slots[*tag])).collect();
    let is_reported = |tag: &usize| output.contains(&format!("to confirm slot {},", slots[*tag]));
    assert!(lost.iter().all(is_reported), "keys of {lost:?} are lost: {output}");
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("0 of 1 replicas follow"), "{output}");
}

/// Returns true when the primaries together hold all keys of a tag. They are in this slot.
fn has_keys(fixture: &RedisFixture, tag: usize, slot: &str) -> bool {
    let holders = (0..8).filter(|&number| fixture.is_running(number) && fixture.leads(number));
    let count = |number| fixture.query(number, &format!("CLUSTER COUNTKEYSINSLOT {slot}"));
    let all = holders.map(|number| count(number).trim_end().parse::<usize>().unwrap()).sum::<usize>();
    println!("tag {tag} in slot {slot}: {all} keys");
    all >= KEYS_PER_TAG
}

/// Returns a cluster of three pairs with keys, and a fourth pair of servers outside the cluster.
async fn cluster_of_three_pairs_with_keys() -> RedisFixture {
    let mut fixture = RedisFixture::with_cluster_of(3).await;
    write_keys(&fixture);
    for number in [6, 7] {
        fixture.start(number);
        fixture.wait_until_up(number).await;
    }
    fixture
}

/// Asserts that four pairs share the slots evenly, hold every key, and need no further run.
async fn assert_evenly_grown(fixture: &RedisFixture) {
    let slots: Vec<u32> = fixture.leaders(4).await.iter().map(|(_, slots)| *slots).collect();
    assert_eq!(slots, [4096; 4]);
    assert_eq!(open_slots(fixture), 0);
    assert_keys_are_there(fixture);
    assert_nothing_to_do(&fixture.cluster(4, &[]).await);
}

fn keys() -> impl Iterator<Item = (String, String)> {
    let of_tag = |tag| (0..KEYS_PER_TAG).map(move |n| (format!("fs:{{{tag}}}:{n}"), format!("{n}-of-{tag}")));
    (0..TAGS).flat_map(of_tag)
}

fn write_keys(fixture: &RedisFixture) {
    let writes: String = keys().map(|(key, value)| format!("SET {key} {value}\n")).collect();
    assert!(fixture.query_cluster(&writes).iter().all(|answer| answer == "OK"));
}

fn assert_keys_are_there(fixture: &RedisFixture) {
    let reads: String = keys().map(|(key, _)| format!("GET {key}\n")).collect();
    let values: Vec<String> = keys().map(|(_, value)| value).collect();
    assert!(fixture.query_cluster(&reads) == values, "keys are lost");
    let count = |number| fixture.query(number, "DBSIZE").trim_end().parse::<usize>().unwrap();
    let all: usize =
        (0..8).filter(|&number| fixture.is_running(number) && fixture.leads(number)).map(count).sum();
    assert_eq!(all, values.len(), "keys exist twice");
}

/// Returns the number of open slots, counted on source and target.
fn open_slots(fixture: &RedisFixture) -> usize {
    let running = (0..8).filter(|&number| fixture.is_running(number));
    running.map(|number| fixture.query(number, "CLUSTER NODES").matches('[').count()).sum()
}

/// Returns true when a server has slots.
fn serves(fixture: &RedisFixture, number: u16) -> bool {
    slots_of(fixture, number) > 0
}

/// Returns the number of slots that a server has.
fn slots_of(fixture: &RedisFixture, number: u16) -> u32 {
    let map = fixture.map(number);
    let own = map.iter().find(|line| line.contains("myself")).unwrap();
    let ranges = own.split(' ').skip_while(|word| *word != "connected").skip(1);
    ranges.filter(|range| !range.starts_with('[')).map(size_of_range).sum()
}

/// Returns the number of slots in a range, such as `7` or `0-5460`.
fn size_of_range(range: &str) -> u32 {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    last.parse::<u32>().unwrap() - first.parse::<u32>().unwrap() + 1
}

/// Returns the slots of a server that hold keys.
fn slots_with_keys(fixture: &RedisFixture, number: u16) -> Vec<u16> {
    let slot_of =
        |tag: usize| fixture.query(number, &format!("CLUSTER KEYSLOT {{{tag}}}")).trim_end().parse();
    let count = |slot: &u16| fixture.query(number, &format!("CLUSTER COUNTKEYSINSLOT {slot}"));
    let slots = (0..TAGS).map(|tag| slot_of(tag).unwrap());
    slots.filter(|slot| count(slot).trim_end() != "0").collect()
}

/// Moves this number of a slot's keys from the first pair to the second.
fn move_keys(fixture: &RedisFixture, slot: u16, count: usize) {
    let keys = fixture.query(0, &format!("CLUSTER GETKEYSINSLOT {slot} {count}"));
    let login = format!("AUTH2 admin {}", fixture.password("admin"));
    let keys: Vec<&str> = keys.lines().collect();
    // The empty argument between two spaces is in the place of a single key.
    let migrate = format!("MIGRATE 127.0.0.1 {}  0 5000 {login} KEYS {}", fixture.port(2), keys.join(" "));
    assert_eq!(fixture.query(0, &migrate).trim_end(), "OK", "{migrate}");
}
