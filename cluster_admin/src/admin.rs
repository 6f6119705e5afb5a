//! Reads the facts, plans the next step and carries it out, until there is nothing to do.

use std::time::Duration;

use rediscluster::{Address, ConnectOptions, Slot};
use tokio::time::{Instant, sleep};

use crate::command::Command;
use crate::facts::Facts;
use crate::moves::{End, Route};
use crate::plan::{Refusal, Request, Step, plan};
use crate::servers::{Servers, Unanswered};

/// Time between two readings while the cluster settles.
const POLL_PERIOD: Duration = Duration::from_millis(20);
/// Time after which commands without a visible effect are sent again. Servers need a tenth of a second to meet.
const RESEND_AFTER: Duration = Duration::from_millis(500);
/// Time after which a state is refused. During a failover two servers claim the same slots, or none does, for a moment.
const REFUSED_AFTER: Duration = Duration::from_millis(500);
/// Number of times that commands are sent again after a server has refused one.
const REFUSALS_MAX: u32 = 5;
/// Time between two reports of what is waited for.
const REMINDER: Duration = Duration::from_secs(5);

/// Forms, grows and repairs one cluster. Only one may run at a time.
pub struct ClusterAdmin<'a> {
    pub(crate) servers: Servers,
    wait_limit: Duration,
    reporter: &'a (dyn Fn(&str) + Send + Sync),
}

/// Why a run ended early. The next run continues.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The login, or a command, is not permitted: a setting is wrong.
    #[error("{0}")]
    Forbidden(String),
    /// Only a person can resolve the state, or a server refused a command.
    #[error("{0}")]
    Refused(String),
    /// A condition did not hold in time.
    #[error("waited {limit_s} s for {condition}: {missing}")]
    Late {
        /// The limit, in seconds.
        limit_s: u64,
        /// The condition.
        condition: String,
        /// The part that was missing at the end.
        missing: String,
    },
}

impl<'a> ClusterAdmin<'a> {
    /// Creates the administration of the cluster that consists of these groups of servers. The seeds of the options
    /// give user, password and TLS. `wait_limit` is the longest time to wait for each condition; `reporter` receives
    /// lines of progress.
    pub fn new(
        options: &ConnectOptions,
        groups: &[Vec<Address>],
        wait_limit: Duration,
        reporter: &'a (dyn Fn(&str) + Send + Sync),
    ) -> Self {
        Self { servers: Servers::new(options, groups), wait_limit, reporter }
    }

    /// Brings the cluster to the requested state. Returns false when there was nothing to do.
    ///
    /// # Errors
    /// Fails when a state or a setting needs a person, or a condition does not hold in time.
    pub async fn run(&self, request: Request) -> Result<bool, AdminError> {
        let mut run = Run { changed: false, wait: None, refused_since: None, commands_refused: 0 };
        loop {
            let mut facts = match self.servers.read().await {
                Ok(facts) => facts,
                Err(unanswered) => {
                    self.wait_for_answer(&mut run, unanswered).await?;
                    continue;
                }
            };
            ensure_permitted(&facts)?;
            let mut step = self.next_step(&mut run, &facts, request)?;
            if step == Some(Step::CountKeys) {
                self.report("looking for the slots that hold keys".to_owned());
                self.count_keys(&mut facts).await?;
                step = self.next_step(&mut run, &facts, request)?;
            }
            match step {
                None => sleep(POLL_PERIOD).await,
                Some(Step::Done | Step::CountKeys) => return Ok(run.changed),
                Some(Step::Wait(condition, missing)) => {
                    self.wait(&mut run, condition.to_owned(), missing).await?;
                }
                Some(Step::Send(purpose, commands)) => self.send(&mut run, purpose, commands).await?,
                Some(Step::Move(moves)) => {
                    (run.changed, run.wait) = (true, None);
                    self.move_slots(&facts, &moves).await?;
                }
            }
        }
    }

    /// Reads the facts once.
    ///
    /// # Errors
    /// Fails when a server does not answer.
    pub async fn facts(&self) -> Result<Facts, AdminError> {
        self.servers.read().await.map_err(AdminError::from)
    }

    /// Moves one slot with its keys between two primaries. The other servers are not asked.
    ///
    /// # Errors
    /// Fails when the target is not replicated, a server refuses a command, or the replicas do not confirm.
    pub async fn move_slot(&self, slot: Slot, from: &Address, to: &Address) -> Result<(), AdminError> {
        let unknown = |address: &Address| AdminError::Refused(format!("{address} is not one of the servers"));
        let index = |address: &Address| self.servers.index(address).ok_or_else(|| unknown(address));
        let (from, to) = (index(from)?, index(to)?);
        let (source, target) = (self.servers.view(from).await?, self.servers.view(to).await?);
        let end = |index, server| End { index, server };
        let route = Route { from: end(from, &source), to: end(to, &target) };
        self.move_open_slots(route, &[slot]).await
    }

    /// Plans. Returns `None` while a refusal may be due to a change that is in progress. Lost data is accepted no
    /// earlier than it would be refused.
    fn next_step(&self, run: &mut Run, facts: &Facts, request: Request) -> Result<Option<Step>, AdminError> {
        if let Ok(step) = plan(facts, Request { accept_data_loss: false, ..request }) {
            run.refused_since = None;
            return Ok(Some(step));
        }
        if run.refused_since.get_or_insert_with(Instant::now).elapsed() < REFUSED_AFTER {
            return Ok(None);
        }
        plan(facts, request).map(Some).map_err(|Refusal(reason)| {
            let unchanged = if run.changed { "" } else { ". Nothing was changed" };
            AdminError::Refused(format!("{reason}{unchanged}"))
        })
    }

    async fn count_keys(&self, facts: &mut Facts) -> Result<(), AdminError> {
        for server in 0..facts.servers.len() {
            let slots: Vec<Slot> = facts.servers[server].slots.iter().collect();
            facts.servers[server].filled =
                Some(self.filled_among(server, &slots).await?.into_iter().collect());
        }
        Ok(())
    }

    /// Sends the commands, unless they were sent a moment ago and have no effect yet.
    async fn send(
        &self,
        run: &mut Run,
        purpose: &'static str,
        commands: Vec<(usize, Command)>,
    ) -> Result<(), AdminError> {
        let missing = format!("{} commands have had no effect yet", commands.len());
        let wait = run.wait_for(purpose.to_owned());
        if !wait.is_send_due() {
            return wait.pause(self, missing).await;
        }
        wait.ensure_in_time(self, missing)?;
        wait.sent_at = Some(Instant::now());
        run.changed = true;
        let mut refused = None;
        for server in 0..self.servers.len() {
            let of_server: Vec<Command> =
                commands.iter().filter(|(to, _)| *to == server).map(|(_, command)| command.clone()).collect();
            let address = self.servers.address(server);
            of_server.iter().for_each(|command| self.report(format!("{address}: {command}")));
            if !of_server.is_empty() {
                refused = self.servers.send(server, &of_server).await.err().or(refused);
            }
        }
        run.commands_refused = if refused.is_some() { run.commands_refused + 1 } else { 0 };
        match refused {
            Some(refusal) if run.commands_refused >= REFUSALS_MAX => Err(AdminError::Refused(refusal)),
            _ => Ok(()),
        }
    }

    async fn wait_for_answer(&self, run: &mut Run, unanswered: Unanswered) -> Result<(), AdminError> {
        match unanswered {
            Unanswered::Forbidden(..) => Err(unanswered.into()),
            Unanswered::Silent(address, why) => self.wait(run, format!("{address} to answer"), why).await,
        }
    }

    async fn wait(&self, run: &mut Run, condition: String, missing: String) -> Result<(), AdminError> {
        run.wait_for(condition).pause(self, missing).await
    }

    pub(crate) fn report(&self, line: String) {
        (self.reporter)(&line);
    }
}

impl From<Unanswered> for AdminError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Forbidden(..) => Self::Forbidden(unanswered.to_string()),
            Unanswered::Silent(..) => Self::Refused(unanswered.to_string()),
        }
    }
}

/// Changes are based on all facts, so the user must be permitted to ask for them.
fn ensure_permitted(facts: &Facts) -> Result<(), AdminError> {
    let refused = facts.servers.iter().find_map(|server| Some((&server.address, server.refusal.as_ref()?)));
    refused.map_or(Ok(()), |(address, why)| Err(Unanswered::Forbidden(address.clone(), why.clone()).into()))
}

/// The state of one run.
struct Run {
    changed: bool,
    wait: Option<Wait>,
    /// The time from which all plans were refused.
    refused_since: Option<Instant>,
    /// Number of times in a row that a server has refused a command.
    commands_refused: u32,
}

impl Run {
    /// Returns the wait for this condition, which begins now unless it has begun.
    fn wait_for(&mut self, condition: String) -> &mut Wait {
        let known = self.wait.take().filter(|wait| wait.condition == condition);
        self.wait.insert(known.unwrap_or_else(|| Wait::new(condition)))
    }
}

/// A condition that is waited for.
pub(crate) struct Wait {
    condition: String,
    since: Instant,
    reported_at: Instant,
    sent_at: Option<Instant>,
}

impl Wait {
    pub(crate) fn new(condition: String) -> Self {
        let now = Instant::now();
        Self { condition, since: now, reported_at: now, sent_at: None }
    }

    fn is_send_due(&self) -> bool {
        self.sent_at.is_none_or(|sent_at| sent_at.elapsed() >= RESEND_AFTER)
    }

    /// Pauses until the next check, or fails when the time is over.
    pub(crate) async fn pause(
        &mut self,
        admin: &ClusterAdmin<'_>,
        missing: String,
    ) -> Result<(), AdminError> {
        self.ensure_in_time(admin, missing)?;
        sleep(POLL_PERIOD).await;
        Ok(())
    }

    fn ensure_in_time(&mut self, admin: &ClusterAdmin<'_>, missing: String) -> Result<(), AdminError> {
        if self.since.elapsed() >= admin.wait_limit {
            let (limit_s, condition) = (admin.wait_limit.as_secs(), self.condition.clone());
            return Err(AdminError::Late { limit_s, condition, missing });
        }
        if self.reported_at.elapsed() >= REMINDER {
            admin.report(format!("waiting for {}: {missing}", self.condition));
            self.reported_at = Instant::now();
        }
        Ok(())
    }
}
