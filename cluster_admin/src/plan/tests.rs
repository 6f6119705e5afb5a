//! The plan in a simulated cluster. Runs are killed, servers lose their disks and replicas are promoted at any point.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rediscluster::{Address, SLOTS, Slot};

use super::*;
use crate::facts::{Endpoint, Node};
use crate::moves::SLOTS_AT_ONCE;

const GROW: Request = Request { goal: Goal::Grow, accept_data_loss: false };
const ACCEPT_LOSS: Request = Request { accept_data_loss: true, ..GROW };
/// More steps than any run needs.
const STEPS_MAX: usize = 300;

/// A simulated server. Its data are the slots in which it has keys.
#[derive(Clone, Debug)]
struct Simulated {
    id: String,
    epoch: u64,
    primary: Option<String>,
    slots: BTreeSet<Slot>,
    data: BTreeSet<Slot>,
    leaving: BTreeMap<Slot, String>,
    entering: BTreeMap<Slot, String>,
    blocks_replicas: bool,
    /// The servers that it knows, with the slots that it saw last.
    known: BTreeMap<String, (Endpoint, Slots)>,
}

/// Pairs of servers: numbers 0 and 1 are the first.
#[derive(Clone, Debug, Default)]
struct World {
    servers: Vec<Simulated>,
    ids: usize,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A run plans one step and is killed after this many of its parts.
    Step(usize),
    LoseDisk(usize),
    /// The replica of a pair is promoted, if it may be. It does not list so many of its primary's slots.
    Promote(usize, usize),
}

fn endpoint(server: usize) -> Endpoint {
    let port = 7000 + Slot::try_from(server).expect("few servers");
    Endpoint { ip: "10.0.0.1".into(), port, bus_port: port + 10_000 }
}

impl World {
    fn of(pairs: usize) -> Self {
        let mut world = Self::default();
        world.add(pairs);
        world
    }

    fn formed(pairs: usize) -> Self {
        let mut world = Self::of(pairs);
        world.settle(GROW);
        world
    }

    /// Writes keys to some slots of all primaries.
    fn with_keys(mut self, every: usize) -> Self {
        for server in &mut self.servers {
            server.data = server.slots.iter().copied().step_by(every).collect();
        }
        (0..self.servers.len()).for_each(|server| self.copy(server));
        self
    }

    fn add(&mut self, pairs: usize) {
        for _ in 0..2 * pairs {
            let fresh = self.fresh();
            self.servers.push(fresh);
        }
    }

    fn fresh(&mut self) -> Simulated {
        self.ids += 1;
        Simulated {
            id: format!("id-{}", self.ids),
            epoch: 0,
            primary: None,
            slots: BTreeSet::new(),
            data: BTreeSet::new(),
            leaving: BTreeMap::new(),
            entering: BTreeMap::new(),
            blocks_replicas: true,
            known: BTreeMap::new(),
        }
    }

    fn facts(&self) -> Facts {
        let servers = self.servers.iter().enumerate().map(|(i, server)| Server {
            address: Address { host: "redis".into(), port: endpoint(i).port },
            group: i / 2,
            id: server.id.clone(),
            primary: server.primary.clone(),
            endpoint: endpoint(i),
            epoch: server.epoch,
            slots: server.slots.iter().copied().collect(),
            leaving: server.leaving.clone(),
            entering: server.entering.clone(),
            others: server.known.iter().map(|(id, seen)| (id.clone(), self.node(id, seen))).collect(),
            keys: server.data.len() as u64,
            has_link: server.primary.as_ref().is_some_and(|primary| self.find(primary).is_some()),
            replicas_online: self.servers.iter().filter(|it| it.primary.as_ref() == Some(&server.id)).count(),
            blocks_replicas: server.blocks_replicas,
            is_ok: true,
            filled: Some(server.slots.intersection(&server.data).copied().collect()),
            refusal: None,
        });
        Facts { servers: servers.collect() }
    }

    fn node(&self, id: &str, (endpoint, seen): &(Endpoint, Slots)) -> Node {
        let live = self.find(id).map(|server| self.servers[server].slots.iter().copied().collect());
        let flags = match self.find(id).map(|server| &self.servers[server].primary) {
            None => "master,fail",
            Some(None) => "master",
            Some(Some(_)) => "slave",
        };
        Node::seen(flags, endpoint.clone(), live.is_some(), live.unwrap_or_else(|| seen.clone()))
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.id == id)
    }

    fn plan(&self, request: Request) -> Result<Step, Refusal> {
        plan(&self.facts(), request)
    }

    /// Carries out a step, up to this many of its parts.
    fn carry_out(&mut self, step: &Step, parts: usize) {
        match step {
            Step::Send(_, commands) => {
                commands.iter().take(parts).for_each(|(server, command)| self.apply(*server, command));
            }
            // Each move has four parts.
            Step::Move(moves) => {
                (0..moves.len() * 4).take(parts).for_each(|i| self.move_on(moves[i / 4], i % 4));
            }
            Step::Wait(..) | Step::CountKeys | Step::Done => {}
        }
    }

    /// Applies a command under the conditions of a real server.
    fn apply(&mut self, at: usize, command: &Command) {
        match command {
            Command::SetEpoch(epoch) => {
                assert!(self.servers[at].known.is_empty() && self.servers[at].epoch == 0);
                self.servers[at].epoch = *epoch as u64;
            }
            Command::Meet(to) => {
                let other = usize::from(to.port - 7000);
                self.meet(at, other);
                self.meet(other, at);
            }
            Command::AddSlots(slots) => {
                assert!(self.servers[at].primary.is_none());
                for slot in slots.iter() {
                    assert!(self.owner(slot).is_none(), "slot {slot} is served");
                    self.servers[at].slots.insert(slot);
                }
            }
            Command::AllowReplicas => self.servers[at].blocks_replicas = false,
            Command::Replicate(id) => self.replicate(at, id),
            Command::Forget(id) => {
                assert_ne!(
                    self.servers[at].primary.as_ref(),
                    Some(id),
                    "a server does not forget its primary"
                );
                self.servers[at].known.remove(id);
            }
            Command::Close(slot) => {
                self.servers[at].leaving.remove(slot);
                self.servers[at].entering.remove(slot);
            }
            Command::Assign(..) | Command::Import(..) | Command::Migrate(..) => {}
        }
    }

    fn meet(&mut self, at: usize, other: usize) {
        let (id, slots) =
            (self.servers[other].id.clone(), self.servers[other].slots.iter().copied().collect());
        self.servers[at].known.insert(id, (endpoint(other), slots));
    }

    fn replicate(&mut self, at: usize, id: &str) {
        let primary = self.find(id).expect("the primary lives");
        assert!(self.servers[at].known.contains_key(id), "it does not know its primary");
        assert!(self.servers[at].slots.is_empty(), "a server with slots does not follow");
        assert_eq!(at / 2, primary / 2, "it follows another pair");
        let is_only_copy = !self.servers[at].data.is_subset(&self.servers[primary].data);
        assert!(!is_only_copy, "the only copy of data is replaced");
        self.servers[at].primary = Some(id.to_owned());
        self.copy(at);
    }

    /// Gives a replica the data of its primary.
    fn copy(&mut self, at: usize) {
        let primary = self.servers[at].primary.clone().and_then(|id| self.find(&id));
        if let Some(primary) = primary.filter(|primary| !self.servers[*primary].blocks_replicas) {
            self.servers[at].data = self.servers[primary].data.clone();
        }
    }

    fn move_on(&mut self, Move { from, to, slot }: Move, part: usize) {
        let (from_id, to_id) = (self.servers[from].id.clone(), self.servers[to].id.clone());
        assert!(self.servers[to].primary.is_none() && self.servers[from].slots.contains(&slot) || part > 2);
        match part {
            0 => {
                let copies = self.servers.iter().any(|server| server.primary.as_ref() == Some(&to_id));
                assert!(copies || from == to ^ 1, "the target is not replicated");
                self.servers[to].entering.insert(slot, from_id);
            }
            1 => drop(self.servers[from].leaving.insert(slot, to_id)),
            2 => {
                if self.servers[from].data.remove(&slot) {
                    self.servers[to].data.insert(slot);
                }
            }
            _ => {
                self.servers[to].slots.insert(slot);
                self.servers[from].slots.remove(&slot);
                self.servers[to].entering.remove(&slot);
                self.servers[from].leaving.remove(&slot);
            }
        }
        [from ^ 1, to ^ 1].into_iter().for_each(|replica| self.copy(replica));
    }

    fn owner(&self, slot: Slot) -> Option<usize> {
        self.servers.iter().position(|server| server.slots.contains(&slot))
    }

    fn has_open_slots(&self) -> bool {
        self.servers.iter().any(|server| !server.leaving.is_empty() || !server.entering.is_empty())
    }

    /// A server comes back with an empty folder, unless it has the only copy of something.
    fn lose_disk_if_copied(&mut self, at: usize) {
        let (lost, partner) = (&self.servers[at], &self.servers[at ^ 1]);
        let is_replica = |it: &Simulated, of: &Simulated| it.primary.as_ref() == Some(&of.id);
        let is_copied = is_replica(lost, partner)
            || is_replica(partner, lost)
            || lost.slots.is_empty() && lost.data.is_empty();
        if is_copied && !self.has_open_slots() {
            self.lose_disk(at);
        }
    }

    fn lose_disk(&mut self, at: usize) {
        let (lost, slots) =
            (self.servers[at].id.clone(), self.servers[at].slots.iter().copied().collect::<Slots>());
        for server in &mut self.servers {
            if let Some((_, seen)) = server.known.get_mut(&lost) {
                *seen = slots.clone();
            }
        }
        self.servers[at] = self.fresh();
    }

    /// Promotes the replica of a pair, whose primary lives or is gone. A living primary keeps its last slots, up to this
    /// number, and the replica has copies of their keys.
    fn promote(&mut self, pair: usize, unlisted: usize) {
        let Some(at) = [2 * pair, 2 * pair + 1].into_iter().find(|at| self.servers[*at].primary.is_some())
        else {
            return;
        };
        let former = self.servers[at].primary.clone().expect("it is a replica");
        if self.has_open_slots() {
            return;
        }
        let slots = match self.find(&former) {
            // A server whose primary serves no slot is not promoted.
            Some(primary) if self.servers[primary].slots.len() <= unlisted => return,
            Some(primary) => {
                let successor = self.servers[at].id.clone();
                let primary = &mut self.servers[primary];
                let mut slots = std::mem::take(&mut primary.slots);
                for _ in 0..unlisted {
                    primary.slots.extend(slots.pop_last());
                }
                match unlisted {
                    0 => primary.primary = Some(successor),
                    _ => primary.data = primary.data.intersection(&primary.slots).copied().collect(),
                }
                slots
            }
            None => self.servers[at]
                .known
                .get(&former)
                .map_or_else(BTreeSet::new, |(_, seen)| seen.iter().collect()),
        };
        self.servers[at].primary = None;
        self.servers[at].slots = slots;
        for server in &mut self.servers {
            if let Some((_, seen)) = server.known.get_mut(&former) {
                *seen = Slots::default();
            }
        }
    }

    /// Runs to the end. Replicas whose primaries are gone are promoted in the meantime.
    fn settle(&mut self, request: Request) {
        for _ in 0..STEPS_MAX {
            let step = self.plan(request).unwrap_or_else(|refusal| panic!("{refusal}"));
            if step == Step::Done {
                return;
            }
            self.carry_out(&step, usize::MAX);
            if let Step::Wait(..) = step {
                self.promote_orphans();
            }
        }
        panic!("{:?} after {STEPS_MAX} steps", self.plan(request));
    }

    fn promote_orphans(&mut self) {
        for pair in 0..self.servers.len() / 2 {
            let of_pair = &self.servers[2 * pair..2 * pair + 2];
            let is_orphan =
                |server: &Simulated| server.primary.as_ref().is_some_and(|id| self.find(id).is_none());
            if of_pair.iter().any(is_orphan) {
                self.promote(pair, 0);
            }
        }
    }

    /// Every slot has one owner, and the owners hold exactly these keys.
    fn assert_intact(&self, keys: &BTreeSet<Slot>) {
        for slot in 0..SLOTS {
            let owners = self.servers.iter().filter(|server| server.slots.contains(&slot)).count();
            assert_eq!(owners, 1, "owners of slot {slot}");
        }
        assert_eq!(&self.keys(), keys);
        for server in self.servers.iter().filter(|server| server.primary.is_none()) {
            assert!(server.data.is_subset(&server.slots), "{} has keys of other slots", server.id);
        }
    }

    fn keys(&self) -> BTreeSet<Slot> {
        let owned = self.servers.iter().flat_map(|server| server.data.intersection(&server.slots));
        owned.copied().collect()
    }

    fn slots_per_pair(&self) -> Vec<usize> {
        self.servers.chunks(2).map(|pair| pair[0].slots.len() + pair[1].slots.len()).collect()
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop_oneof![1..40_usize, Just(usize::MAX)].prop_map(Event::Step),
        1 => (0..10_usize).prop_map(Event::LoseDisk),
        1 => (0..5_usize, prop_oneof![Just(0), 1..600_usize]).prop_map(|(pair, unlisted)| Event::Promote(pair, unlisted)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// After any interruptions the last run ends with a whole cluster and every key.
    #[test]
    fn growth_keeps_every_key_when_it_is_interrupted(
        (added, every) in (0..=2_usize, 1..400_usize),
        events in prop::collection::vec(event(), 0..30),
    ) {
        let mut world = World::formed(3).with_keys(every);
        let keys = world.keys();
        world.add(added);
        let pairs = 3 + added;
        for event in events {
            match event {
                Event::Step(parts) => {
                    let step = world.plan(GROW).unwrap_or_else(|refusal| panic!("{refusal}"));
                    world.carry_out(&step, parts);
                }
                Event::LoseDisk(server) => world.lose_disk_if_copied(server % (2 * pairs)),
                Event::Promote(pair, unlisted) => world.promote(pair % pairs, unlisted.min(SLOTS_AT_ONCE)),
            }
        }
        world.settle(GROW);
        world.assert_intact(&keys);
        let (least, most) = (16_384 / pairs, 16_384 / pairs + 1);
        let fair = |slots: &usize| *slots * 100 >= least * 98 && *slots * 100 <= most * 102;
        prop_assert!(world.slots_per_pair().iter().all(fair), "{:?}", world.slots_per_pair());
    }

    /// A cluster is created by runs of which each is killed somewhere.
    #[test]
    fn creation_completes_when_it_is_interrupted(
        pairs in 3..=5_usize,
        parts in prop::collection::vec(0..30_usize, 0..20),
    ) {
        let mut world = World::of(pairs);
        for parts in parts {
            let step = world.plan(GROW).unwrap();
            world.carry_out(&step, parts);
        }
        world.settle(GROW);
        world.assert_intact(&BTreeSet::new());
        prop_assert_eq!(world.slots_per_pair(), (0..pairs).map(|pair| share(pair, pairs)).collect::<Vec<_>>());
    }

    /// Slots whose data is gone are assigned only on request. The data of all others stays.
    #[test]
    fn lost_slots_are_assigned_only_on_request(
        (pair, parts) in (0..3_usize, prop::collection::vec(0..20_usize, 0..10)),
        has_keys in any::<bool>(),
    ) {
        let mut world = World::formed(3).with_keys(if has_keys { 7 } else { usize::MAX });
        [2 * pair, 2 * pair + 1].into_iter().for_each(|server| world.lose_disk(server));
        let left = world.keys();
        prop_assert!(world.plan(GROW).unwrap_err().0.contains("--accept-data-loss"));
        for parts in parts {
            let step = world.plan(ACCEPT_LOSS).unwrap();
            world.carry_out(&step, parts);
            // No server may remember the owner any more, and the loss is still not accepted silently.
            let unserved = !world.facts().unclaimed().is_empty();
            prop_assert!(!unserved || world.plan(GROW).is_err() || world.keys().is_empty());
        }
        world.settle(ACCEPT_LOSS);
        world.assert_intact(&left);
    }
}

#[test]
fn formed_pairs_get_no_slots_until_growth() {
    let mut world = World::formed(3);
    world.add(1);
    world.settle(Request { goal: Goal::Form, accept_data_loss: false });
    assert_eq!(world.slots_per_pair(), [5461, 5461, 5462, 0]);
    world.settle(GROW);
    assert_eq!(world.slots_per_pair(), [4096; 4]);
}

#[test]
fn slots_with_keys_are_spread_evenly() {
    let mut world = World::formed(3).with_keys(100);
    world.add(1);
    world.settle(GROW);
    let filled: Vec<usize> = world.servers.iter().step_by(2).map(|server| server.data.len()).collect();
    let (least, most) = (filled.iter().min().unwrap(), filled.iter().max().unwrap());
    assert!(most - least <= 2, "{filled:?}");
}

#[test]
fn only_copy_waits_for_its_promotion() {
    let mut world = World::formed(3).with_keys(100);
    world.lose_disk(2);
    // The empty server meets the others, and the replica is not told to copy it.
    loop {
        match world.plan(GROW).unwrap() {
            Step::Wait(_, why) => break assert!(why.contains("CLUSTER FAILOVER TAKEOVER"), "{why}"),
            step => world.carry_out(&step, usize::MAX),
        }
    }
}

/// Returns the refusal of a formed cluster with keys that was changed like this.
fn refusal_after(change: impl Fn(&mut World)) -> String {
    let mut world = World::formed(3).with_keys(100);
    change(&mut world);
    world.plan(GROW).unwrap_err().0
}

#[test]
fn states_that_need_a_person_are_refused() {
    let forgotten = refusal_after(|world| world.servers[0].known.clear());
    assert!(forgotten.contains("redis:7000 holds 55 keys but knows no other server"), "{forgotten}");

    let both = refusal_after(|world| world.servers[1].slots.extend(0..600));
    assert_eq!(both, "redis:7000 and redis:7001 both serve slots: they are not a pair");

    let other_pair = refusal_after(|world| world.servers[1].primary = Some(world.servers[2].id.clone()));
    assert!(other_pair.starts_with("redis:7001 copies redis:7002, which is not its partner"), "{other_pair}");

    let apart = refusal_after(|world| {
        let id = world.servers[0].id.clone();
        world.servers[2].known.remove(&id);
    });
    assert_eq!(
        apart,
        "redis:7002 and redis:7000 hold data but do not know each other: these are two clusters"
    );

    let shrunk = {
        let mut world = World::formed(4);
        world.servers.truncate(6);
        world.plan(GROW).unwrap_err().0
    };
    assert!(shrunk.contains("which PAIRS does not name"), "{shrunk}");

    let contested = refusal_after(|world| {
        for (target, slot) in [(2, 0), (4, 0)] {
            let id = world.servers[0].id.clone();
            world.servers[target].entering.insert(slot, id);
        }
    });
    assert_eq!(contested, "slot 0 is moving to two servers");
}
