//! Reads process information from Linux's `/proc`: identity, CPU time, memory, and listening sockets.

use std::time::Duration;

use procfs::{
    net::{TcpState, tcp, tcp6},
    process::{FDTarget, Process, Stat, all_processes},
    ticks_per_second,
};
use serde::{Deserialize, Serialize};

/// Identifies a process uniquely. The kernel reuses pids, but not together with the same start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// The process id.
    pub pid: u32,
    /// The start time, in clock ticks since boot.
    pub started_at_ticks: u64,
}

impl ProcessIdentity {
    /// Returns the identity of the process with this pid. Returns `None` when no such process exists, or only a zombie
    /// that its parent has not reaped.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        (stat.state != 'Z').then_some(Self { pid, started_at_ticks: stat.starttime })
    }

    /// Returns true while this process runs.
    pub fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The user and system CPU time that a process has used, or `None` when no such process exists.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = stat(pid)?;
    Some(Duration::from_millis((stat.utime + stat.stime) * 1000 / ticks_per_second()))
}

/// The CPU time of the threads that a process has now, or `None` when no such process exists. Exact, where
/// [`cpu_time`] counts in ticks of 10 ms; without the threads that have ended.
pub fn cpu_time_of_threads(pid: u32) -> Option<Duration> {
    let threads = process(pid)?.tasks().ok()?;
    let times = threads.flatten().filter_map(|thread| Some(thread.schedstat().ok()?.sum_exec_runtime));
    Some(Duration::from_nanos(times.sum()))
}

/// The resident memory of a process in bytes, or `None` when no such process exists.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    Some(process(pid)?.status().ok()?.vmrss? * 1024)
}

/// The highest resident memory of a process so far in bytes, or `None` when no such process exists.
pub fn peak_resident_bytes(pid: u32) -> Option<u64> {
    Some(process(pid)?.status().ok()?.vmhwm? * 1024)
}

/// The processes that listen on this TCP port. Empty where the permissions on `/proc` hide them.
pub fn listeners(port: u16) -> Vec<u32> {
    let sockets = [tcp(), tcp6()].into_iter().flatten().flatten();
    let sockets: Vec<u64> = sockets
        .filter(|socket| socket.state == TcpState::Listen && socket.local_address.port() == port)
        .map(|socket| socket.inode)
        .collect();
    let processes = all_processes().into_iter().flatten().flatten();
    let listening = processes.filter(|process| {
        let mut open = process.fd().into_iter().flatten().flatten();
        open.any(|file| matches!(file.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
    });
    listening.map(|process| process.pid().cast_unsigned()).collect()
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let processes = all_processes().into_iter().flatten().flatten();
    let stats = processes.filter_map(|process| process.stat().ok());
    stats.filter(|stat| stat.ppid == pid.cast_signed()).map(|stat| stat.pid.cast_unsigned()).collect()
}

/// The name of the program of a process, or an empty string when no such process exists.
pub fn name(pid: u32) -> String {
    stat(pid).map(|stat| stat.comm).unwrap_or_default()
}

fn process(pid: u32) -> Option<Process> {
    Process::new(pid.cast_signed()).ok()
}

fn stat(pid: u32) -> Option<Stat> {
    process(pid)?.stat().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_differs_when_start_time_differs() {
        let ourselves = ProcessIdentity::of(std::process::id()).unwrap();
        let earlier_process =
            ProcessIdentity { started_at_ticks: ourselves.started_at_ticks - 1, ..ourselves };

        assert!(ourselves.is_running());
        assert!(!earlier_process.is_running());
    }

    #[test]
    fn cpu_time_of_threads_grows_with_work() {
        let ourselves = std::process::id();
        let before = cpu_time_of_threads(ourselves).unwrap();
        while cpu_time_of_threads(ourselves).unwrap() < before + Duration::from_millis(1) {
            std::hint::black_box(before);
        }
        assert_eq!(cpu_time_of_threads(u32::MAX / 2), None);
    }
}
