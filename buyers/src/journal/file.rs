//! A journal in a file of JSON lines. One thread writes it and syncs all pending lines at once.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::{JournalEntry, Micros};

/// Writer of a journal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    lines: mpsc::Sender<(String, oneshot::Sender<()>)>,
    requests: Arc<AtomicU64>,
    began: (Instant, Micros),
    written: Arc<Mutex<Vec<JournalEntry>>>,
    path: Arc<PathBuf>,
}

impl Journal {
    /// Creates an empty journal at this path.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let (lines, pending) = mpsc::channel();
        thread::Builder::new().name("journal".into()).spawn(move || write(file, &pending))?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let began = (Instant::now(), u64::try_from(since_1970.as_micros())?);
        Ok(Self { lines, requests: Arc::default(), began, written: Arc::default(), path: Arc::new(path) })
    }

    /// Path of the journal's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a number that no other request has.
    pub fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Current time, by a clock that never steps back.
    pub fn now(&self) -> Micros {
        let (instant, micros) = self.began;
        micros + u64::try_from(instant.elapsed().as_micros()).unwrap_or(u64::MAX - micros)
    }

    /// Appends an entry. It is on disk when this returns.
    ///
    /// # Errors
    /// Fails when the disk is full or gone. Then the request must not be sent, and the answer must not be used.
    pub async fn append(&self, record: &JournalEntry) -> Result<()> {
        let (synced, on_disk) = oneshot::channel();
        let line = serde_json::to_string(record)? + "\n";
        self.lines.send((line, synced)).context("the journal is closed")?;
        on_disk.await.context("the journal cannot be written")?;
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        Ok(())
    }

    /// Returns the entries since `from`, from memory, for the report of a fault. The audit reads the file.
    pub fn since(&self, from: Micros) -> Vec<JournalEntry> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let first = written.iter().rposition(|record| record.at() < from).map_or(0, |last| last + 1);
        written[first..].to_vec()
    }
}

/// Writes and syncs pending lines. Ends when the last handle of the journal is dropped, or when the disk fails: then
/// pending writers get an error instead of a confirmation.
fn write(mut file: File, pending: &mpsc::Receiver<(String, oneshot::Sender<()>)>) {
    while let Ok(first) = pending.recv() {
        let group: Vec<_> = std::iter::once(first).chain(pending.try_iter()).collect();
        let lines: String = group.iter().map(|(line, _)| line.as_str()).collect();
        if file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for (_, synced) in group {
            // The receiver is gone when its task was aborted in the middle of a request.
            synced.send(()).ok();
        }
    }
}

/// Reads a journal. Leaves out a last line that a kill truncated: no client acted on it.
///
/// # Errors
/// Fails when the file cannot be read, or when a line is not an entry.
pub fn read(path: &Path) -> Result<Vec<JournalEntry>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<String> = BufReader::new(file).lines().collect::<Result<_, _>>()?;
    let last = lines.len().saturating_sub(1);
    let mut records = Vec::with_capacity(lines.len());
    for (number, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(_) if number == last => {}
            Err(error) => {
                return Err(error).with_context(|| format!("line {} of {}", number + 1, path.display()));
            }
        }
    }
    Ok(records)
}
