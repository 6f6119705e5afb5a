//! A journal as a file of JSON lines, written by one thread that syncs whatever waits in one go.

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

/// A journal that is being written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    lines: mpsc::Sender<(String, oneshot::Sender<()>)>,
    requests: Arc<AtomicU64>,
    began: (Instant, Micros),
    noted: Arc<Mutex<Vec<JournalEntry>>>,
    path: Arc<PathBuf>,
}

impl Journal {
    /// An empty journal at this path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let (lines, waiting) = mpsc::channel();
        thread::Builder::new().name("journal".into()).spawn(move || write(file, &waiting))?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let began = (Instant::now(), u64::try_from(since_1970.as_micros())?);
        Ok(Self { lines, requests: Arc::default(), began, noted: Arc::default(), path: Arc::new(path) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number that no other request has.
    pub fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Now.
    pub fn now(&self) -> Micros {
        let (instant, micros) = self.began;
        micros + u64::try_from(instant.elapsed().as_micros()).unwrap_or(u64::MAX - micros)
    }

    /// Writes a record down; it is on disk when this returns.
    ///
    /// # Errors
    /// When the disk is full or gone. Nothing may be sent or believed then.
    pub async fn note(&self, record: &JournalEntry) -> Result<()> {
        let (synced, on_disk) = oneshot::channel();
        let line = serde_json::to_string(record)? + "\n";
        self.lines.send((line, synced)).context("the journal is closed")?;
        on_disk.await.context("the journal cannot be written")?;
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        Ok(())
    }

    /// What was written down since then, for whoever watches; the audit reads what is on disk.
    pub fn since(&self, from: Micros) -> Vec<JournalEntry> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let first = noted.iter().rposition(|record| record.at() < from).map_or(0, |last| last + 1);
        noted[first..].to_vec()
    }
}

/// Ends when the last journal's handle is gone, or the disk fails: then nobody is told that anything was synced.
fn write(mut file: File, waiting: &mpsc::Receiver<(String, oneshot::Sender<()>)>) {
    while let Ok(first) = waiting.recv() {
        let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let lines: String = group.iter().map(|(line, _)| line.as_str()).collect();
        if file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for (_, synced) in group {
            // Who no longer waits was ended in the middle of a request.
            synced.send(()).ok();
        }
    }
}

/// Reads a journal back. A last line that was cut off by a kill was never believed, and is left out.
///
/// # Errors
/// When it cannot be read, or holds what is no record.
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
