//! The Redis exporter runs as its own user and may run every command that it needs.

use std::time::Duration;

use redis::{Value, cmd};
use testkit::ports::PortBlock;
use testkit::{Folder, Launch, User, binary, until};

use crate::{security_of, shared_redis};

#[tokio::test]
async fn exporter_reads_metrics_without_forbidden_commands() {
    let redis = shared_redis().await;
    let (security, server) = (security_of(redis), redis.primaries().await[1]);
    let (folder, ports) = (Folder::temporary().unwrap(), PortBlock::take().unwrap());
    let program =
        binary::installed("prometheus-redis-exporter").expect("prometheus-redis-exporter is installed");
    let exporter = Launch::new("exporter", program, folder.path())
        .arg(format!("-web.listen-address=127.0.0.1:{}", ports.first()))
        .args(["-redis.addr=", "-config-command=-", "-set-client-name=false", "-redis.user=exporter"])
        .env("REDIS_PASSWORD", security.password(User::Exporter).unwrap());
    let ca = security.ca_file().map(|file| format!("-tls-ca-cert-file={}", file.display()));
    let exporter = exporter.args(ca).spawn().unwrap();

    let target = security.url(server);
    let url = format!("http://127.0.0.1:{}/scrape?target={target}", ports.first());
    let sees = async || match reqwest::get(&url).await {
        Ok(answer) => answer.text().await.unwrap().contains("\nredis_up 1\n"),
        Err(_) => false,
    };
    until("the exporter sees Redis", Duration::from_secs(10), sees)
        .await
        .unwrap_or_else(|_| panic!("{}", exporter.log_tail()));
    let figures = reqwest::get(&url).await.unwrap().text().await.unwrap();
    for figure in
        ["redis_memory_used_bytes", "redis_cluster_slots_ok", "redis_connected_slaves", "redis_aof_enabled"]
    {
        assert!(figures.contains(&format!("\n{figure}")), "{figure} is missing in {figures}");
    }

    let mut connection = redis.connection(server).await.unwrap();
    let log: Value = cmd("ACL").arg("LOG").query_async(&mut connection).await.unwrap();
    assert_eq!(log, Value::Array(Vec::new()));
}
