//! A disk that is slow to sync: confirmed writes survive a primary that dies meanwhile and is back before it is replaced.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use stock::layout::slot_of_tag;
use testkit::{ClusterOptions, Folder, RedisCluster, ServerBinary, until};
use tokio::time::timeout;

/// A server syncs once a second at least.
const LIMIT: Duration = Duration::from_secs(10);
/// A server that has not answered by then waits for its disk. Well below the time after which it would be replaced.
const STANDSTILL: Duration = Duration::from_millis(300);
/// The hash tag of all keys here.
const TAG: &str = "slow-disk";
/// In the data folder of a server: while it is there, the server's disk does not finish a sync.
const SIGN: &str = "disk-is-slow";
/// Replaces the C library's function in a server.
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
async fn confirmed_writes_survive_a_primary_that_dies_while_its_disk_is_slow() {
    // Given somebody who writes, and has each write confirmed by the replica.
    let folder = Folder::temporary().unwrap();
    let binary = Some(server_with_slow_syncs(folder.path()));
    let redis = RedisCluster::start(ClusterOptions { binary, ..ClusterOptions::default() }).await.unwrap();
    let primary = redis.primary_of(slot_of_tag(TAG)).await.unwrap();
    let confirmed = Arc::new(Mutex::new(Vec::new()));
    let count = || confirmed.lock().unwrap().len();
    let writer = tokio::spawn(write(redis.connection(primary).await.unwrap(), Arc::clone(&confirmed)));
    until("confirmed writes", LIMIT, async || count() > 100).await.unwrap();

    // When a sync does not end, writes go on for as long as the server lets them, and it is killed and started again.
    let sign = redis.folder().path().join(format!("redis-{}", primary.port())).join(SIGN);
    fs::write(&sign, "").unwrap();
    until("a sync that does not end", LIMIT, async || waits_for_disk(&redis, primary).await).await.unwrap();
    let before = count();
    let _stands_still =
        timeout(STANDSTILL, until("more writes", LIMIT, async || count() > before + 50)).await;
    redis.kill(primary);
    fs::remove_file(&sign).unwrap();
    redis.restart(primary).await.unwrap();
    redis.wait_until_whole().await.unwrap();

    // Then no write is gone that was confirmed.
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

/// Whether a server has a sync that does not end: one in the background, or one that it stands still for.
async fn waits_for_disk(redis: &RedisCluster, server: SocketAddr) -> bool {
    let info = async {
        let mut connection = redis.connection(server).await.ok()?;
        cmd("INFO").arg("persistence").query_async::<String>(&mut connection).await.ok()
    };
    let told = timeout(STANDSTILL, info).await;
    told.map_or(true, |info| info.is_some_and(|info| info.contains("aof_pending_bio_fsync:1")))
}

/// The server program with a disk that can be slow. Made of C, which Rust links with anyway.
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
