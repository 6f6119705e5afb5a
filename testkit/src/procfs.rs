//! Reads process information from Linux's `/proc`: identity, CPU time, memory, and listening sockets.

use std::{fs, time::Duration};

use serde::{Deserialize, Serialize};

/// Unit of process times in `/proc` (`USER_HZ`), independent of the kernel's own tick.
const TICKS_PER_SECOND: u64 = 100;

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
        let stat = Stat::read(pid)?;
        (stat.state != "Z").then_some(Self { pid, started_at_ticks: stat.started_at_ticks })
    }

    /// Returns true while this process runs.
    pub fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The user and system CPU time that a process has used, or `None` when no such process exists.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    Stat::read(pid).map(|stat| Duration::from_millis(stat.cpu_ticks * 1000 / TICKS_PER_SECOND))
}

/// The resident memory of a process in bytes, or `None` when no such process exists.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kib.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// The processes that listen on this TCP port. Empty where the permissions on `/proc` hide them.
pub fn listeners(port: u16) -> Vec<u32> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    pids().filter(|&pid| holds_any(pid, &sockets)).collect()
}

/// The fields of `/proc/<pid>/stat` (proc_pid_stat(5)) that this module uses.
struct Stat {
    state: String,
    cpu_ticks: u64,
    started_at_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may contain any character, so fields are counted
    /// after the last parenthesis.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.to_string(),
            cpu_ticks: number(14)? + number(15)?,
            started_at_ticks: number(22)?,
        })
    }
}

/// Returns the inodes of the sockets that listen on `port`, from a table like `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let ending = format!(":{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&ending) && fields[3] == LISTEN)
        .map(|fields| fields[9].to_owned())
        .collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds_any(pid: u32, sockets: &[String]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// The name of the program of a process, or an empty string when no such process exists.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_parser_accepts_program_name_with_fields() {
        let line = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 1 0 777 0 0";

        let stat = Stat::parse(line).unwrap();

        assert_eq!((stat.state.as_str(), stat.cpu_ticks, stat.started_at_ticks), ("S", 400, 777));
    }

    #[test]
    fn identity_differs_when_start_time_differs() {
        let ourselves = ProcessIdentity::of(std::process::id()).unwrap();
        let earlier_process =
            ProcessIdentity { started_at_ticks: ourselves.started_at_ticks - 1, ..ourselves };

        assert!(ourselves.is_running());
        assert!(!earlier_process.is_running());
    }
}
