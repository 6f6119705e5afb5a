//! A server starts from its password files, or reports in one line why it does not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::fixture::{RedisFixture, copy_of_conf};

#[tokio::test]
async fn invalid_settings_are_refused_in_one_line() {
    let fixture = RedisFixture::new();
    let refusal = async |variable: &str, value: &str, words: &str| {
        let launch = fixture.server(0).env(variable, value);
        fixture.finish(launch).await.assert_refusal(64, words);
    };
    refusal("PASSWORDS_FOLDER", "", "PASSWORDS_FOLDER is required").await;
    refusal("PASSWORDS_FOLDER", "/nowhere", "/nowhere/").await;
    refusal("DATA_FOLDER", "/nowhere", "DATA_FOLDER: /nowhere").await;
    refusal("CONF_FOLDER", "/nowhere", "CONF_FOLDER: /nowhere/redis.conf").await;
    refusal("TLS_FOLDER", "/nowhere", "TLS_FOLDER: /nowhere/tls.crt").await;
    refusal("PORT", "63a9", "PORT: 63a9").await;
    refusal("SERVER", "no-such-server", "SERVER: there is no no-such-server").await;

    fixture.write_passwords("exporter", &[""]);
    refusal("PORT", "6379", "servers/exporter.sha256 holds no password").await;
    let hashes = fixture.server_passwords().join("exporter.sha256");
    fs::write(&hashes, "swordfish\n").unwrap();
    refusal("PORT", "6379", "servers/exporter.sha256 has a line that is no SHA-256").await;
    fs::remove_file(hashes).unwrap();
    refusal("PORT", "6379", "servers/exporter.sha256 cannot be read").await;

    let conf = copy_of_conf(fixture.folder.path());
    fs::write(conf.join("users.acl"), "user default off\nuser node on #${NODE_PASSWORD}\n").unwrap();
    refusal("CONF_FOLDER", &conf.to_string_lossy(), "unknown placeholder ${NODE_PASSWORD}").await;
}

#[tokio::test]
async fn every_line_of_a_password_file_logs_in() {
    // Given passwords with every character that is special in a shell or in the servers' files.
    let mut fixture = RedisFixture::new();
    let odd = r#"it's "odd" \x41 $HOME `id` & #%"#;
    for user in ["admin", "replica", "node"] {
        fixture.write_passwords(user, &[odd, "", "second one"]);
    }
    fixture.start(0);
    fixture.wait_until_up(0).await;

    let whoami = |user, password| fixture.query_as(user, password, 0, "ACL WHOAMI").trim_end().to_owned();
    assert_eq!(whoami("admin", odd), "admin");
    assert_eq!(whoami("admin", "second one"), "admin");
    for wrong in ["third one", "second", r#"it's "odd" A $HOME `id` & #%"#] {
        assert!(whoami("admin", wrong).contains("WRONGPASS"), "{wrong} was accepted");
    }
    assert!(fixture.query_as("default", odd, 0, "PING").contains("WRONGPASS"), "`default` can log in");
    // The server parsed exactly the password with which it logs in to its primary.
    assert_eq!(fixture.query(0, "CONFIG GET masterauth").lines().nth(1), Some(odd));
}

#[tokio::test]
async fn server_starts_without_the_password_of_any_client() {
    // Given a server whose folders are searched for each password.
    let mut fixture = RedisFixture::new();
    let folders = [fixture.server_passwords(), fixture.data(0).join("run")];
    fixture.start(0);
    fixture.wait_until_up(0).await;
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let seen: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();

    for user in ["admin", "coordinator", "node", "ledger", "exporter"] {
        assert!(!seen.contains(&fixture.password(user)), "the server has the password of {user}");
    }
    assert!(seen.contains(&fixture.password("replica")));
}

#[tokio::test]
async fn secrets_are_readable_by_the_server_only() {
    let mut fixture = RedisFixture::new();
    fixture.start(0);
    fixture.wait_until_up(0).await;

    let proc = format!("/proc/{}/cmdline", fixture.process(0).pid());
    let command_line = String::from_utf8_lossy(&fs::read(proc).unwrap()).replace('\0', " ");
    assert!(command_line.contains("redis") || command_line.contains("valkey"), "{command_line}");
    assert!(!command_line.contains(&fixture.password("replica")), "{command_line}");
    let run = fixture.data(0).join("run");
    assert_eq!(fs::metadata(&run).unwrap().permissions(), Permissions::from_mode(0o040_700));
    for file in ["users.acl", "server.conf"] {
        let permissions = fs::metadata(run.join(file)).unwrap().permissions();
        assert_eq!(permissions, Permissions::from_mode(0o100_600), "{file}");
    }
    let users = fs::read_to_string(run.join("users.acl")).unwrap();
    assert!(!users.contains(&fixture.password("admin")) && !users.contains("${"), "{users}");
}

#[tokio::test]
async fn server_announces_its_name_and_address() {
    let mut fixture = RedisFixture::new();
    fixture.start(0);
    fixture.wait_until_up(0).await;
    let announced = fixture.map(0)[0].split(' ').nth(1).unwrap().to_owned();
    let (port, name) = (fixture.port(0), if fixture.is_tls() { ",localhost" } else { "" });
    let bus = port + 20;
    assert_eq!(announced, format!("127.0.0.1:{port}@{bus}{name}"));

    // Without an address, it announces the address of its name.
    let named =
        fixture.server(1).env("ANNOUNCE_HOSTNAME", "localhost").env("ANNOUNCE_IP", "").spawn().unwrap();
    fixture.wait_until_up(1).await;
    for setting in ["cluster-announce-ip", "replica-announce-ip"] {
        let address = fixture.query(1, &format!("CONFIG GET {setting}"));
        assert!(["127.0.0.1", "::1"].contains(&address.lines().nth(1).unwrap()), "{address}");
    }
    drop(named);
}
