//! Moves slots from primary to primary while their keys are in use.
//!
//! A shard's function uses all keys of the shard. While a slot is moving, a server refuses a call that uses one key it
//! has and another it does not have. Therefore all keys of a slot move in one MIGRATE, and the slot is assigned to the
//! target right after it. This order keeps every key available on exactly one server:
//!
//! 0. The target is replicated: all replicas that the map lists for it follow, and there is at least one.
//! 1. The target prepares to receive the slot (IMPORTING).
//! 2. The source stops creating keys in it (MIGRATING).
//! 3. All its keys move at once. A key that already exists on the target ends the run.
//! 4. The source confirms that it is a primary, creates no new keys in the slot and holds none.
//! 5. The target, then the source, assign the slot to the target (NODE).
//! 6. The target's replicas list the slot as the target's. Without it, one of them would be promoted without the slot.
//! 7. They confirm everything that the target had written by then.
//!
//! Between steps 3 and 7 the keys exist on one server only, because MIGRATE waits for no replica. Moves therefore stop
//! at step 0, 6 or 7 at the first slot without a copy.
//!
//! A target that is replaced before step 6 keeps the slot as a second primary of its group, because its successor does
//! not list it. The move from there to the successor leaves out steps 0, 6 and 7, which would wait for a replica: the
//! source becomes that replica. Keys that the successor has in the slot are from its time as a replica, when it did
//! not serve them, so they are replaced.
//!
//! When the run is killed before step 5, the slot still belongs to the source and is open; the next run continues with
//! step 1. When it is killed in step 5, the target already has the slot.

use std::collections::BTreeMap;

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Address, Line, Slot};

use crate::admin::{AdminError, ClusterAdmin, Wait};
use crate::command::Command;
use crate::facts::{Facts, Server};
use crate::plan::Move;
use crate::servers::error_in;

/// Number of slots without keys that are open at the same time. Each takes a few calls.
pub(crate) const SLOTS_AT_ONCE: usize = 512;
/// Maximum number of keys in one MIGRATE. A shard has four keys.
const KEYS_AT_ONCE: usize = 10_000;
/// Maximum time that MIGRATE waits for the target, in ms.
const MIGRATE_MS_MAX: u32 = 5_000;

/// Source and target of moves.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) from: End<'a>,
    pub(crate) to: End<'a>,
}

/// A server at one end of a move.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) index: usize,
    pub(crate) server: &'a Server,
}

/// Replication as a primary reports it.
struct Replication {
    /// Number of replicas that its map lists.
    listed: usize,
    /// The offset that each following replica has confirmed.
    confirmed: Vec<u64>,
    /// Its own offset.
    written: u64,
}

impl ClusterAdmin<'_> {
    /// Moves slots with keys one at a time, so that each is open only briefly. Moves slots without keys in groups.
    pub(crate) async fn move_slots(&self, facts: &Facts, moves: &[Move]) -> Result<(), AdminError> {
        let mut routes: BTreeMap<(usize, usize), Vec<Slot>> = BTreeMap::new();
        for one in moves {
            routes.entry((one.from, one.to)).or_default().push(one.slot);
        }
        for ((from, to), slots) in routes {
            let end = |index: usize| End { index, server: &facts.servers[index] };
            let route = Route { from: end(from), to: end(to) };
            let filled = self.filled_among(from, &slots).await?;
            self.report(format!(
                "moving {} slots from {} to {}, {} with keys",
                slots.len(),
                route.source(),
                route.target(),
                filled.len()
            ));
            for slot in filled.clone() {
                self.move_open_slots(route, &[slot]).await?;
            }
            let empty: Vec<Slot> = slots.into_iter().filter(|slot| !filled.contains(slot)).collect();
            for slots in empty.chunks(SLOTS_AT_ONCE) {
                self.move_open_slots(route, slots).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn move_open_slots(&self, route: Route<'_>, slots: &[Slot]) -> Result<(), AdminError> {
        let (from_id, to_id) = (&route.from.server.id, &route.to.server.id);
        if !route.is_within_group() {
            self.wait_until_replicated(route, slots[0]).await?;
        }
        let commands = |set: fn(Slot, String) -> Command, id: &String| -> Vec<Command> {
            slots.iter().map(|slot| set(*slot, id.clone())).collect()
        };
        let (import, migrate) = (commands(Command::Import, from_id), commands(Command::Migrate, to_id));
        let assign = commands(Command::Assign, to_id);
        self.set_slots(route.to, &import).await?;
        let mut moved = None;
        loop {
            self.set_slots(route.from, &migrate).await?;
            let filled = self.filled_among(route.from.index, slots).await?;
            if filled.is_empty() {
                break;
            }
            for slot in filled {
                self.carry_keys(route, slot).await?;
                moved.get_or_insert(slot);
            }
        }
        for end in [route.to, route.from] {
            self.set_slots(end, &assign).await?;
        }
        if route.is_within_group() {
            return Ok(());
        }
        self.wait_until_listed(route, slots).await?;
        match moved {
            Some(slot) => self.wait_for_copies(route, slot).await,
            None => Ok(()),
        }
    }

    /// Returns those of the slots that hold keys on a server.
    pub(crate) async fn filled_among(&self, server: usize, slots: &[Slot]) -> Result<Vec<Slot>, AdminError> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let counts: Vec<Cmd> =
            slots.iter().map(|slot| cluster_command(&["COUNTKEYSINSLOT", &slot.to_string()])).collect();
        let counts = self.servers.query(server, &counts).await;
        let is_filled = |count: &Value| !matches!(count, Value::Int(0));
        let counted = counts.map_err(AdminError::Refused)?;
        Ok(slots.iter().zip(&counted).filter(|(_, count)| is_filled(count)).map(|(slot, _)| *slot).collect())
    }

    async fn set_slots(&self, end: End<'_>, commands: &[Command]) -> Result<(), AdminError> {
        self.servers.send_many(end.index, commands).await.map_err(AdminError::Refused)
    }

    async fn wait_until_replicated(&self, route: Route<'_>, slot: Slot) -> Result<(), AdminError> {
        let (source, target) = (route.source(), route.target());
        let mut wait = Wait::new(format!("replicas of {target}, before slot {slot} moves there"));
        while let Err(why) = self.ensure_replicated(route.to).await {
            let missing = format!("slot {slot} stays at {source}: {target} is not replicated: {why}");
            wait.pause(self, missing).await?;
        }
        Ok(())
    }

    async fn wait_until_listed(&self, route: Route<'_>, slots: &[Slot]) -> Result<(), AdminError> {
        let (target, slot) = (route.target(), slots[0]);
        let mut wait = Wait::new(format!("the replicas of {target} to list its new slots"));
        while let Err(why) = self.ensure_listed(route.to, slots).await {
            let missing = format!("slot {slot} is at {target}, but its keys may not be replicated: {why}");
            wait.pause(self, missing).await?;
        }
        Ok(())
    }

    /// Waits until the replicas have everything that their primary has now. WAIT cannot be used: it covers only the
    /// writes of its own connection, and the keys arrived over another one.
    async fn wait_for_copies(&self, route: Route<'_>, slot: Slot) -> Result<(), AdminError> {
        let written = self.replication_of(route.to.index).await.map_err(AdminError::Refused)?.written;
        let target = route.target();
        let mut wait =
            Wait::new(format!("the replicas of {target} to confirm slot {slot}, which is there now"));
        while let Err(why) = self.ensure_confirmed(route.to, written).await {
            let missing = format!("slot {slot} is at {target}, but its keys may not be replicated: {why}");
            wait.pause(self, missing).await?;
        }
        Ok(())
    }

    async fn ensure_listed(&self, target: End<'_>, slots: &[Slot]) -> Result<(), String> {
        for partner in self.servers.partners(target.index) {
            let view = self.servers.view(partner).await.map_err(|unanswered| unanswered.to_string())?;
            if let Some(slot) = slots.iter().find(|slot| !view.lists(**slot, &target.server.id)) {
                return Err(format!("{} does not list slot {slot} as its primary's", view.address));
            }
        }
        Ok(())
    }

    async fn ensure_replicated(&self, target: End<'_>) -> Result<(), String> {
        self.replication_of(target.index).await?.ensure_complete()
    }

    async fn ensure_confirmed(&self, target: End<'_>, written: u64) -> Result<(), String> {
        self.replication_of(target.index).await?.ensure_confirmed(written)
    }

    async fn replication_of(&self, server: usize) -> Result<Replication, String> {
        let mut info = redis::cmd("INFO");
        info.arg("replication");
        let replies = self.servers.query(server, &[cluster_command(&["NODES"]), info]).await?;
        let texts: Option<Vec<String>> =
            replies.into_iter().map(|reply| from_redis_value(reply).ok()).collect();
        let replication = texts.as_deref().and_then(|texts| Replication::parse(&texts[0], &texts[1]));
        replication.ok_or_else(|| format!("{} is not a primary", self.servers.address(server)))
    }

    /// Moves all keys of a slot.
    async fn carry_keys(&self, route: Route<'_>, slot: Slot) -> Result<(), AdminError> {
        let listing = cluster_command(&["GETKEYSINSLOT", &slot.to_string(), &KEYS_AT_ONCE.to_string()]);
        let listed = self.servers.query(route.from.index, &[listing]).await.map_err(AdminError::Refused)?;
        let keys: Vec<Vec<u8>> =
            listed.into_iter().next().and_then(|keys| from_redis_value(keys).ok()).unwrap_or_default();
        if keys.is_empty() {
            return Ok(());
        }
        let migrate = self.migration(route, &keys);
        let replies =
            self.servers.replies(route.from.index, 0, &[migrate]).await.map_err(AdminError::Refused)?;
        let incomplete = |why: &str| {
            AdminError::Refused(format!(
                "the move of slot {slot} from {} to {} is incomplete: {why}",
                route.source(),
                route.target()
            ))
        };
        match replies.first() {
            // A key may have expired in the meantime.
            Some(Value::Okay | Value::SimpleString(_)) => Ok(()),
            Some(reply) => match error_in(reply) {
                Some(error) if error.contains("BUSYKEY") => Err(AdminError::Refused(format!(
                    "slot {slot}: a key exists on both {} and {}, and it is not known which copy is right: {}",
                    route.source(),
                    route.target(),
                    keys.iter().map(|key| String::from_utf8_lossy(key)).collect::<Vec<_>>().join(" ")
                ))),
                error => Err(incomplete(&error.unwrap_or_else(|| format!("{reply:?}")))),
            },
            None => Err(incomplete("no reply")),
        }
    }

    fn migration(&self, route: Route<'_>, keys: &[Vec<u8>]) -> Cmd {
        let endpoint = &route.to.server.endpoint;
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg(&endpoint.ip).arg(endpoint.port).arg("").arg(0).arg(MIGRATE_MS_MAX);
        match self.servers.login() {
            (Some(user), Some(password)) => migrate.arg("AUTH2").arg(user).arg(password),
            (None, Some(password)) => migrate.arg("AUTH").arg(password),
            _ => &mut migrate,
        };
        if route.is_within_group() {
            migrate.arg("REPLACE");
        }
        migrate.arg("KEYS").arg(keys);
        migrate
    }
}

impl Route<'_> {
    /// Returns true when it leads from a replaced primary to its successor.
    fn is_within_group(&self) -> bool {
        self.from.server.group == self.to.server.group
    }

    fn source(&self) -> &Address {
        &self.from.server.address
    }

    fn target(&self) -> &Address {
        &self.to.server.address
    }
}

impl Replication {
    fn parse(nodes: &str, info: &str) -> Option<Self> {
        let lines: Vec<Line<'_>> = nodes.lines().map(Line::parse).collect::<Option<_>>()?;
        let own = lines.iter().find(|line| line.is("myself") && line.is("master"))?;
        let following =
            info.lines().filter(|line| line.starts_with("slave") && line.contains(",state=online,"));
        let offset =
            |line: &str| line.split(',').find_map(|field| field.strip_prefix("offset=")?.parse().ok());
        let written = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"))?;
        Some(Self {
            listed: lines.iter().filter(|line| line.primary == own.id).count(),
            confirmed: following.filter_map(offset).collect(),
            written: written.trim_end().parse().ok()?,
        })
    }

    /// All replicas that the map lists follow, and there is at least one.
    fn ensure_complete(&self) -> Result<(), String> {
        match (self.confirmed.len(), self.listed) {
            (following, listed) if following < listed.max(1) => {
                Err(format!("{following} of {listed} replicas follow"))
            }
            _ => Ok(()),
        }
    }

    fn ensure_confirmed(&self, written: u64) -> Result<(), String> {
        self.ensure_complete()?;
        let behind = self.confirmed.iter().find(|confirmed| **confirmed < written);
        behind.map_or(Ok(()), |behind| Err(format!("a replica is at {behind} of {written}")))
    }
}

fn cluster_command(words: &[&str]) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg(words);
    command
}
