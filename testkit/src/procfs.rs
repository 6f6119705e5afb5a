//! What Linux tells about processes under `/proc`: who a pid really is, what it used, what it listens on.

use std::{fs, time::Duration};

use serde::{Deserialize, Serialize};

/// Linux reports process times in these units whatever the kernel's own tick is (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// A process that cannot be mistaken for a later one with the same pid: the kernel reuses pids, but not together with
/// the moment of the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started_at_ticks: u64,
}

impl ProcessIdentity {
    /// Who has this pid now; `None` if nobody, or only a dead process that its parent has not collected.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (stat.state != "Z").then_some(Self { pid, started_at_ticks: stat.started_at_ticks })
    }

    /// Whether that very process still runs.
    pub fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The user and system CPU time that a process used so far; `None` if there is no such process.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    Stat::read(pid).map(|stat| Duration::from_millis(stat.cpu_ticks * 1000 / TICKS_PER_SECOND))
}

/// The memory of a process that is in RAM, in bytes; `None` if there is no such process.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kib.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// The processes that listen on this TCP port: empty where `/proc` does not let us see.
pub fn listeners(port: u16) -> Vec<u32> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    pids().filter(|&pid| holds_any(pid, &sockets)).collect()
}

/// The few fields of `/proc/<pid>/stat` (proc_pid_stat(5)) that matter here.
struct Stat {
    state: String,
    cpu_ticks: u64,
    started_at_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may hold anything, so counting starts behind it.
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

/// Inodes of the listening sockets on `port` in a table like `/proc/net/tcp`.
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

/// The name of its program; empty if there is no such process.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_name_looks_like_fields_is_read_right() {
        let line = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 1 0 777 0 0";

        let stat = Stat::parse(line).unwrap();

        assert_eq!((stat.state.as_str(), stat.cpu_ticks, stat.started_at_ticks), ("S", 400, 777));
    }

    #[test]
    fn a_pid_with_another_start_is_another_process() {
        let ourselves = ProcessIdentity::of(std::process::id()).unwrap();
        let an_earlier_one =
            ProcessIdentity { started_at_ticks: ourselves.started_at_ticks - 1, ..ourselves };

        assert!(ourselves.is_running());
        assert!(!an_earlier_one.is_running());
    }
}
