//! The state of a cluster, for people.

use rediscluster::Address;

use crate::admin::ClusterAdmin;
use crate::facts::Facts;
use crate::plan::{Goal, Request, Step, plan};

/// The state of a cluster at one moment.
#[derive(Debug)]
pub struct ClusterStatus {
    /// The groups in the given order.
    pub groups: Vec<GroupStatus>,
    /// Why it is not healthy, or what is left to do.
    pub problem: Option<String>,
}

/// The state of one group. Servers that do not answer are left out.
#[derive(Debug, Default)]
pub struct GroupStatus {
    /// The primary.
    pub primary: Option<Address>,
    /// The replicas that follow it, with true for those whose link is up.
    pub replicas: Vec<(Address, bool)>,
    /// Number of slots that the primary serves.
    pub slots: usize,
    /// Number of its keys.
    pub keys: u64,
}

impl ClusterAdmin<'_> {
    /// Reads the state of the cluster once. Changes nothing.
    pub async fn status(&self) -> ClusterStatus {
        let views = self.servers.views().await;
        let unanswered = views.iter().find_map(|view| view.as_ref().err()).map(ToString::to_string);
        let facts = Facts { servers: views.into_iter().flatten().collect() };
        let groups = (0..self.servers.groups()).map(|group| GroupStatus::of(&facts, group)).collect();
        ClusterStatus { groups, problem: unanswered.or_else(|| problem(&facts)) }
    }
}

impl GroupStatus {
    fn of(facts: &Facts, group: usize) -> Self {
        if facts.members(group).next().is_none() {
            return Self::default();
        }
        let leader = facts.leader_of(group);
        let replicas = facts.members(group).filter(|server| server.primary.as_ref() == Some(&leader.id));
        Self {
            primary: Some(leader.address.clone()),
            replicas: replicas.map(|server| (server.address.clone(), server.has_link)).collect(),
            slots: leader.slots.len(),
            keys: leader.keys,
        }
    }
}

fn problem(facts: &Facts) -> Option<String> {
    match plan(facts, Request { goal: Goal::Form, accept_data_loss: false }) {
        Err(refusal) => Some(refusal.to_string()),
        Ok(Step::Wait(_, missing)) => Some(missing),
        Ok(Step::Send(purpose, _)) => Some(format!("not done yet: {purpose}")),
        Ok(Step::Move(moves)) => Some(format!("the moves of {} slots are not complete", moves.len())),
        Ok(Step::CountKeys | Step::Done) => None,
    }
}
