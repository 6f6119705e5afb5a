//! Connections to all servers, and their replies.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use redis::{Cmd, Pipeline, Value};
use rediscluster::{Address, ConnectOptions, Connection};
use tokio::time::timeout;

use crate::command::Command;
use crate::facts::{Facts, Server, questions};

/// Timeout of commands that change something. The longest move the keys of a slot.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Some servers let each command wait for their replica, so many commands go over several connections.
const SESSIONS_MAX: usize = 8;
/// Number of commands for which another connection is worth it.
const COMMANDS_PER_SESSION: usize = 32;

/// The servers of a cluster, group by group.
pub(crate) struct Servers {
    options: ConnectOptions,
    answer_limit: Duration,
    addresses: Vec<(usize, Address)>,
    connections: Mutex<HashMap<(usize, usize), Connection>>,
}

/// Why a server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The login, or a command, is not permitted. Waiting does not help.
    #[error("{0} does not let this user in: {1}")]
    Forbidden(Address, String),
    /// It is not there, or not ready.
    #[error("{0} does not answer: {1}")]
    Silent(Address, String),
}

impl Servers {
    pub(crate) fn new(options: &ConnectOptions, groups: &[Vec<Address>]) -> Self {
        let of_group = |(group, servers): (usize, &Vec<Address>)| {
            servers.iter().map(move |address| (group, address.clone())).collect::<Vec<_>>()
        };
        Self {
            options: ConnectOptions { response_timeout: COMMAND_LIMIT, ..options.clone() },
            answer_limit: options.connect_timeout + options.response_timeout,
            addresses: groups.iter().enumerate().flat_map(of_group).collect(),
            connections: Mutex::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(crate) fn groups(&self) -> usize {
        self.addresses.last().map_or(0, |(group, _)| group + 1)
    }

    pub(crate) fn index(&self, address: &Address) -> Option<usize> {
        self.addresses.iter().position(|(_, other)| other == address)
    }

    pub(crate) fn address(&self, server: usize) -> &Address {
        &self.addresses[server].1
    }

    /// The indexes of the other servers of a server's group.
    pub(crate) fn partners(&self, server: usize) -> impl Iterator<Item = usize> {
        let group = self.addresses[server].0;
        (0..self.len()).filter(move |other| *other != server && self.addresses[*other].0 == group)
    }

    /// User and password, for servers that log in at each other.
    pub(crate) fn login(&self) -> (Option<&str>, Option<&str>) {
        let settings = self.options.seeds.first().map(|seed| seed.redis_settings());
        settings.map_or((None, None), |settings| (settings.username(), settings.password()))
    }

    /// Reads the facts from all servers, or the first reason why there are none.
    pub(crate) async fn read(&self) -> Result<Facts, Unanswered> {
        let servers = self.views().await.into_iter().collect::<Result<_, _>>()?;
        Ok(Facts { servers })
    }

    /// Reads the view of each server.
    pub(crate) async fn views(&self) -> Vec<Result<Server, Unanswered>> {
        let mut views = Vec::new();
        for server in 0..self.len() {
            views.push(self.view(server));
        }
        join_all(views).await
    }

    pub(crate) async fn view(&self, server: usize) -> Result<Server, Unanswered> {
        let (group, address) = &self.addresses[server];
        let silent = |why: &str| Unanswered::Silent(address.clone(), why.to_owned());
        let asked = timeout(self.answer_limit, self.exchange(server, 0, &questions())).await;
        let replies = asked.map_err(|_| {
            self.disconnect(server, 0);
            silent("no answer in time")
        })?;
        let replies = replies.map_err(|why| match why.contains("(WRONGPASS)") {
            true => Unanswered::Forbidden(address.clone(), why),
            false => silent(&why),
        })?;
        let refusals: Vec<String> = replies.iter().filter_map(error_in).collect();
        match Server::parse(address, *group, replies) {
            Some(view) => Ok(Server { refusal: refusals.into_iter().next(), ..view }),
            None => {
                let why = refusals.into_iter().next().unwrap_or_else(|| "its answer has another form".into());
                let is_forbidden = ["NOPERM", "NOAUTH"].iter().any(|code| why.starts_with(code));
                Err(if is_forbidden { Unanswered::Forbidden(address.clone(), why) } else { silent(&why) })
            }
        }
    }

    /// Sends commands to a server in this order.
    ///
    /// # Errors
    /// Returns the first reply other than OK.
    pub(crate) async fn send(&self, server: usize, commands: &[Command]) -> Result<(), String> {
        let commands: Vec<Cmd> = commands.iter().map(command).collect();
        self.send_in_session(server, 0, &commands).await
    }

    /// Sends commands to a server in any order, over several connections.
    ///
    /// # Errors
    /// Returns the first reply other than OK.
    pub(crate) async fn send_many(&self, server: usize, commands: &[Command]) -> Result<(), String> {
        let sessions = (commands.len() / COMMANDS_PER_SESSION + 1).min(SESSIONS_MAX);
        let share = |session| commands.iter().skip(session).step_by(sessions).map(command).collect();
        let shares: Vec<Vec<Cmd>> = (0..sessions).map(share).collect();
        let mut sending = Vec::new();
        for (session, share) in shares.iter().enumerate() {
            sending.push(self.send_in_session(server, session, share));
        }
        try_join_all(sending).await.map(drop)
    }

    async fn send_in_session(&self, server: usize, session: usize, commands: &[Cmd]) -> Result<(), String> {
        let replies = self.replies(server, session, commands).await?;
        let refused = replies.iter().find(|reply| !matches!(reply, Value::Okay));
        refused.map_or(Ok(()), |reply| {
            Err(format!(
                "{}: {}",
                self.address(server),
                error_in(reply).unwrap_or_else(|| format!("{reply:?}"))
            ))
        })
    }

    /// Sends queries to a server and returns its replies, none of which is an error.
    pub(crate) async fn query(&self, server: usize, queries: &[Cmd]) -> Result<Vec<Value>, String> {
        let replies = self.replies(server, 0, queries).await?;
        match replies.iter().find_map(error_in) {
            Some(error) => Err(format!("{}: {error}", self.address(server))),
            None => Ok(replies),
        }
    }

    /// Sends commands to a server and returns its replies, errors included.
    pub(crate) async fn replies(
        &self,
        server: usize,
        session: usize,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, String> {
        let mut pipeline = Pipeline::new();
        commands.iter().for_each(|command| {
            pipeline.add_command(command.clone());
        });
        let replies = self.exchange(server, session, &pipeline).await;
        replies.map_err(|why| format!("{}: {why}", self.address(server)))
    }

    async fn exchange(
        &self,
        server: usize,
        session: usize,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, String> {
        let mut connection = self.connection(server, session).await?;
        let replies = connection.exchange(pipeline).await;
        replies.map_err(|error| {
            self.disconnect(server, session);
            error.to_string()
        })
    }

    async fn connection(&self, server: usize, session: usize) -> Result<Connection, String> {
        let known = self.connections().get(&(server, session)).cloned();
        if let Some(connection) = known {
            return Ok(connection);
        }
        let opened = Connection::open(&self.options, self.address(server)).await;
        let connection = opened.map_err(|error| error.reason)?;
        self.connections().insert((server, session), connection.clone());
        Ok(connection)
    }

    fn disconnect(&self, server: usize, session: usize) {
        self.connections().remove(&(server, session));
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<(usize, usize), Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn command(command: &Command) -> Cmd {
    let words = command.words();
    let mut cmd = redis::cmd(&words[0]);
    cmd.arg(&words[1..]);
    cmd
}

/// The text of an error reply.
pub(crate) fn error_in(reply: &Value) -> Option<String> {
    let Value::ServerError(error) = reply else { return None };
    Some(format!("{} {}", error.code(), error.details().unwrap_or_default()))
}
