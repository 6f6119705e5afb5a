//! What is interrupted anywhere, by whatever, is finished by the next run, and no key is lost.

use std::fs;
use std::time::Duration;

use testkit::until;

use crate::making::assert_nothing_to_do;
use crate::stage::{RedisFixture, SOON};

/// Keys in this many slots, so that some move with keys and most without, as in a sale.
const TAGS: usize = 20;
const KEYS_A_TAG: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn growth_that_was_killed_anywhere_is_finished_by_the_next_run() {
    let mut place = with_keys_on_three_pairs_of_four().await;

    // When runs are killed while slots are open, and a server of the new pair loses everything.
    for after in [0, 50, 250] {
        let run = place.cluster_launch(4).spawn().unwrap();
        until("an open slot", SOON, async || open_slots(&place) > 0 || !run.is_running()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(after)).await;
        assert!(run.is_running(), "it was over before it could be killed{}", run.log_tail());
        run.kill();
        println!("killed with {} ends of slots open", open_slots(&place));
    }
    let former = place.id(7);
    place.lose(7);
    place.start(7);
    place.wait_until_up(7).await;

    // Then the next run ends whole, and nobody remembers who 7 was.
    place.cluster(4, &[]).await.assert_ok();
    assert_whole(&place).await;
    for number in 0..8 {
        assert!(!place.ask(number, "CLUSTER NODES").contains(&former), "{number} still knows it as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_left_halfway_at_any_step_ends_where_it_was_going() {
    let place = RedisFixture::with_cluster_of(3).await;
    write_keys(&place);
    let (from, to) = (0, 2);
    let slots = slots_with_keys(&place, from);
    let [taken, opened, halved, told] = slots[..4] else { panic!("the first pair has few keys: {slots:?}") };
    let set = |server: u16, slot: u16, state: &str| {
        assert_eq!(place.ask(server, &format!("CLUSTER SETSLOT {slot} {state}")).trim_end(), "OK");
    };
    let (from_id, to_id) = (place.id(from), place.id(to));

    // Given slots that were left after each of the steps: those who were to be told it were not, from there on.
    for slot in [taken, opened, halved, told] {
        set(to, slot, &format!("IMPORTING {from_id}"));
    }
    for slot in [opened, halved, told] {
        set(from, slot, &format!("MIGRATING {to_id}"));
    }
    carry_keys(&place, halved, KEYS_A_TAG / 2);
    carry_keys(&place, told, KEYS_A_TAG);
    set(to, told, &format!("NODE {to_id}"));

    place.cluster(3, &[]).await.assert_ok();

    // Then they are all there with all they hold, and nothing is open.
    let theirs = slots_with_keys(&place, to);
    assert!([taken, opened, halved, told].iter().all(|slot| theirs.contains(slot)), "{slots:?} {theirs:?}");
    assert_eq!(open_slots(&place), 0);
    assert_keys_are_there(&place);
    assert_nothing_to_do(&place.cluster(3, &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_that_fail_over_in_the_middle_of_growth_lose_nothing() {
    let place = with_keys_on_three_pairs_of_four().await;

    // When, in the middle of growth, who gives slots away is replaced, and then who gets them.
    for replica in [1, 7] {
        let run = place.cluster_launch(4).spawn().unwrap();
        // A server that serves nothing has no successor.
        let moving = async || open_slots(&place) > 0 && serves(&place, 6);
        until("slots that move", SOON, moving).await.unwrap();
        place.fail_over_to(replica).await;
        let code = run.wait(SOON).await.unwrap().code();
        println!("while {replica} came to lead: exit {code:?}{}", run.log_tail());
    }

    // Then the next run ends whole, whoever leads.
    place.cluster(4, &[]).await.assert_ok();
    assert!(place.leads(1) && place.leads(7));
    assert_whole(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_stop_moving_when_their_target_loses_its_replica() {
    let mut place = with_keys_on_three_pairs_of_four().await;
    let slots = || (0..TAGS).map(|tag| place.ask(0, &format!("CLUSTER KEYSLOT {{{tag}}}")));
    let slots: Vec<String> = slots().map(|slot| slot.trim_end().to_owned()).collect();

    // When the new primary loses its replica's link while slots move there, and dies once the script has ended.
    let run = place.cluster_launch(4).env("WAIT_LIMIT", 5).spawn().unwrap();
    until("the first slots of the new pair", SOON, async || serves(&place, 6)).await.unwrap();
    for command in ["ACL SETUSER replica -psync -sync", "CLIENT KILL TYPE replica"] {
        place.ask(6, command);
    }
    let code = run.wait(SOON).await.unwrap().code();
    let said = fs::read_to_string(run.log()).unwrap();
    place.kill(6);
    until("its replica to lead", SOON, async || place.leads(7)).await.unwrap();

    // Then no key is lost, but for a slot that the script says may be there without a copy.
    let lost: Vec<usize> = (0..TAGS).filter(|tag| !has_keys(&place, *tag, &slots[*tag])).collect();
    let told = |tag: &usize| said.contains(&format!("to confirm slot {},", slots[*tag]));
    assert!(lost.iter().all(told), "keys of {lost:?} are lost: {said}");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("0 of 1 replicas follow"), "{said}");
}

/// Whether a server that leads has all keys of a tag, which lie in this slot.
fn has_keys(place: &RedisFixture, tag: usize, slot: &str) -> bool {
    let holders = (0..8).filter(|&number| place.is_running(number) && place.leads(number));
    let count = |number| place.ask(number, &format!("CLUSTER COUNTKEYSINSLOT {slot}"));
    let all = holders.map(|number| count(number).trim_end().parse::<usize>().unwrap()).sum::<usize>();
    println!("tag {tag} in slot {slot}: {all} keys");
    all >= KEYS_A_TAG
}

/// A cluster of three pairs that holds keys, and a fourth pair of servers that wait to be taken in.
async fn with_keys_on_three_pairs_of_four() -> RedisFixture {
    let mut place = RedisFixture::with_cluster_of(3).await;
    write_keys(&place);
    for number in [6, 7] {
        place.start(number);
        place.wait_until_up(number).await;
    }
    place
}

/// Four pairs, evenly, with every key, and nothing more to do.
async fn assert_whole(place: &RedisFixture) {
    let slots: Vec<u32> = place.leaders(4).await.iter().map(|(_, slots)| *slots).collect();
    assert_eq!(slots, [4096; 4]);
    assert_eq!(open_slots(place), 0);
    assert_keys_are_there(place);
    assert_nothing_to_do(&place.cluster(4, &[]).await);
}

fn keys() -> impl Iterator<Item = (String, String)> {
    let of_tag = |tag| (0..KEYS_A_TAG).map(move |n| (format!("fs:{{{tag}}}:{n}"), format!("{n}-of-{tag}")));
    (0..TAGS).flat_map(of_tag)
}

fn write_keys(place: &RedisFixture) {
    let writes: String = keys().map(|(key, value)| format!("SET {key} {value}\n")).collect();
    assert!(place.ask_the_cluster(&writes).iter().all(|answer| answer == "OK"));
}

fn assert_keys_are_there(place: &RedisFixture) {
    let reads: String = keys().map(|(key, _)| format!("GET {key}\n")).collect();
    let values: Vec<String> = keys().map(|(_, value)| value).collect();
    assert!(place.ask_the_cluster(&reads) == values, "keys are lost");
    let count = |number| place.ask(number, "DBSIZE").trim_end().parse::<usize>().unwrap();
    let all: usize =
        (0..8).filter(|&number| place.is_running(number) && place.leads(number)).map(count).sum();
    assert_eq!(all, values.len(), "keys are there twice");
}

/// How many ends of slots are open, with whoever gives away or gets.
fn open_slots(place: &RedisFixture) -> usize {
    let running = (0..8).filter(|&number| place.is_running(number));
    running.map(|number| place.ask(number, "CLUSTER NODES").matches('[').count()).sum()
}

/// Whether a server has slots of its own.
fn serves(place: &RedisFixture, number: u16) -> bool {
    let map = place.map(number);
    let own = map.iter().find(|line| line.contains("myself")).unwrap();
    own.split(' ').skip_while(|word| *word != "connected").any(|word| word.starts_with(char::is_numeric))
}

/// The slots of a server that hold keys.
fn slots_with_keys(place: &RedisFixture, number: u16) -> Vec<u16> {
    let slot_of = |tag: usize| place.ask(number, &format!("CLUSTER KEYSLOT {{{tag}}}")).trim_end().parse();
    let count = |slot: &u16| place.ask(number, &format!("CLUSTER COUNTKEYSINSLOT {slot}"));
    let slots = (0..TAGS).map(|tag| slot_of(tag).unwrap());
    slots.filter(|slot| count(slot).trim_end() != "0").collect()
}

/// Carries so many of a slot's keys from the first pair to the second.
fn carry_keys(place: &RedisFixture, slot: u16, count: usize) {
    let keys = place.ask(0, &format!("CLUSTER GETKEYSINSLOT {slot} {count}"));
    let login = format!("AUTH2 admin {}", place.password("admin"));
    let keys: Vec<&str> = keys.lines().collect();
    // The empty word between two blanks stands where a single key would.
    let migrate = format!("MIGRATE 127.0.0.1 {}  0 5000 {login} KEYS {}", place.port(2), keys.join(" "));
    assert_eq!(place.ask(0, &migrate).trim_end(), "OK", "{migrate}");
}
