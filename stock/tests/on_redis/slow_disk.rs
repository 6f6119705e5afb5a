//! A disk with slow syncs: confirmed writes survive when the primary dies meanwhile and is back before a failover.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use rediscluster::slot_of_tag;
use testkit::{ClusterOptions, Folder, RedisCluster, ServerBinary, until};
use tokio::time::timeout;

/// Timeout of each wait. A server syncs at least once per second.
const LIMIT: Duration = Duration::from_secs(10);
/// A server that has not answered after this time waits for its disk. Well below the failover timeout.
const STANDSTILL: Duration = Duration::from_millis(300);
/// Hash tag of all keys of this test.
const TAG: &str = "slow-disk";
/// File in the data directory of a server. While it exists, a sync of the server's disk does not end.
const MARKER: &str = "disk-is-slow";
/// Replaces the function of the C library in a server.
const SLOW_SYNC: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
    while (access("disk-is-slow", F_OK) == 0) usleep(10000);
    return syscall(SYS_fdatasync, fd);
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_writes_survive_a_crash_during_slow_sync() {
    // Given a client that writes and has each write confirmed by the replica.
    let folder = Folder::temporary().unwrap();
    let binary = Some(server_with_slow_syncs(folder.path()));
    let redis = RedisCluster::start(ClusterOptions { binary, ..ClusterOptions::default() }).await.unwrap();
    let primary = redis.primary_of(slot_of_tag(TAG)).await.unwrap();
    let confirmed = Arc::new(Mutex::new(Vec::new()));
    let count = || confirmed.lock().unwrap().len();
    let writer = tokio::spawn(write(redis.connection(primary).await.unwrap(), Arc::clone(&confirmed)));
    until("confirmed writes", LIMIT, async || count() > 100).await.unwrap();

    // When a sync does not end, writes continue as long as the server accepts them. Then it is killed and restarted.
    let marker = redis.folder().path().join(format!("redis-{}", primary.port())).join(MARKER);
    fs::write(&marker, "").unwrap();
    until("a sync that does not end", LIMIT, async || waits_for_disk(&redis, primary).await).await.unwrap();
    let before = count();
    let _blocked = timeout(STANDSTILL, until("more writes", LIMIT, async || count() > before + 50)).await;
    redis.kill(primary);
    fs::remove_file(&marker).unwrap();
    redis.restart(primary).await.unwrap();
    redis.wait_until_whole().await.unwrap();

    // Then no confirmed write is lost.
    writer.await.unwrap();
    let leader = redis.primary_of(slot_of_tag(TAG)).await.unwrap();
    let mut connection = redis.connection(leader).await.unwrap();
    let keys = confirmed.lock().unwrap().clone();
    let found: usize = cmd("EXISTS").arg(&keys).query_async(&mut connection).await.unwrap();
    println!("{found} of {} confirmed writes are there, {before} from before", keys.len());
    assert_eq!(found, keys.len(), "confirmed writes are gone");
}

/// Writes one key after the other until the server is gone.
async fn write(mut connection: MultiplexedConnection, confirmed: Arc<Mutex<Vec<String>>>) {
    for number in 0.. {
        let key = format!("{{{TAG}}}{number}");
        let mut write = redis::pipe();
        write.cmd("SET").arg(&key).arg("").ignore().cmd("WAIT").arg(1).arg(500);
        match write.query_async::<(u32,)>(&mut connection).await {
            Ok((1..,)) => confirmed.lock().unwrap().push(key),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Returns true when a sync of the server does not end: one in the background, or one that blocks the server.
async fn waits_for_disk(redis: &RedisCluster, server: SocketAddr) -> bool {
    let info = async {
        let mut connection = redis.connection(server).await.ok()?;
        cmd("INFO").arg("persistence").query_async::<String>(&mut connection).await.ok()
    };
    let reply = timeout(STANDSTILL, info).await;
    reply.map_or(true, |info| info.is_some_and(|info| info.contains("aof_pending_bio_fsync:1")))
}

/// Builds a server program whose disk can be slow. Needs a C compiler, which Rust needs for linking anyway.
fn server_with_slow_syncs(folder: &Path) -> ServerBinary {
    let (source, library) = (folder.join("slow_sync.c"), folder.join("slow_sync.so"));
    fs::write(&source, SLOW_SYNC).unwrap();
    let compiled =
        Command::new("cc").arg("-shared").arg("-fPIC").arg(&source).arg("-o").arg(&library).status();
    assert!(compiled.unwrap().success(), "no C compiler made {}", library.display());
    let server = ServerBinary::find().unwrap();
    let script = folder.join("server");
    let text = format!(
        "#!/bin/sh\nLD_PRELOAD='{} libc.so.6' exec '{}' \"$@\"\n",
        library.display(),
        server.path().display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    ServerBinary::at(script).unwrap()
}
