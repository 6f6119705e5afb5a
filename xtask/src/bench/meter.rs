//! CPU time of the server processes, as the operating system counts it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use testkit::{ServerRole, Stack, procfs};

/// The processes whose CPU time a request may use, by their part in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    pub(super) servers: Vec<u32>,
    pub(super) primaries: Vec<u32>,
    pub(super) replicas: Vec<u32>,
    pub(super) others: Vec<u32>,
}

/// CPU time in microseconds, by the part that used it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CpuTime {
    /// The programs that answer the requests: nodes, the bare handler, the classic design.
    pub(super) server: f64,
    pub(super) primaries: f64,
    pub(super) replicas: f64,
    /// nginx and the coordinator.
    pub(super) others: f64,
}

impl Meter {
    /// The Redis servers and the coordinators of a stack, and these servers of requests.
    pub(super) async fn of_stack(stack: &Stack, servers: Vec<u32>) -> Self {
        let redis = stack.redis().servers().await;
        let with_role =
            |role| redis.iter().filter(|server| server.role == role).map(|server| server.pid).collect();
        Self {
            servers,
            primaries: with_role(ServerRole::Primary),
            replicas: with_role(ServerRole::Replica),
            others: stack.coordinators().iter().map(|coordinator| coordinator.process().pid()).collect(),
        }
    }

    /// The same processes and nginx.
    pub(super) fn with_nginx(mut self, stack: &Stack) -> Self {
        let nginx = stack.nginx().process().pid();
        self.others.extend(procfs::children(nginx).into_iter().chain([nginx]));
        self
    }

    /// Time that the processes have used so far.
    pub(super) fn read(&self) -> CpuTime {
        let sum = |pids: &Vec<u32>| {
            let times = pids.iter().copied().filter_map(procfs::cpu_time_of_threads);
            times.sum::<Duration>().as_secs_f64() * 1e6
        };
        CpuTime {
            server: sum(&self.servers),
            primaries: sum(&self.primaries),
            replicas: sum(&self.replicas),
            others: sum(&self.others),
        }
    }
}

impl CpuTime {
    /// Time since `earlier`, for each of so many requests.
    pub(super) fn since(self, earlier: Self, requests: f64) -> Self {
        let each = |now: f64, before: f64| (now - before).max(0.0) / requests;
        Self {
            server: each(self.server, earlier.server),
            primaries: each(self.primaries, earlier.primaries),
            replicas: each(self.replicas, earlier.replicas),
            others: each(self.others, earlier.others),
        }
    }

    pub(super) fn redis(self) -> f64 {
        self.primaries + self.replicas
    }

    pub(super) fn all(self) -> f64 {
        self.server + self.redis() + self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_divided_by_requests() {
        let earlier = CpuTime { server: 100.0, primaries: 10.0, replicas: 10.0, others: 0.0 };
        let later = CpuTime { server: 300.0, primaries: 50.0, replicas: 30.0, others: 20.0 };
        let each = later.since(earlier, 10.0);
        assert_eq!(each, CpuTime { server: 20.0, primaries: 4.0, replicas: 2.0, others: 2.0 });
        assert_eq!((each.redis(), each.all()), (6.0, 28.0));
    }
}
