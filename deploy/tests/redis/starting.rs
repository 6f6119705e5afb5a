//! One server starts from its password files, or says in one line why not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::stage::{RedisFixture, copy_of_conf};

#[tokio::test]
async fn a_bad_setting_is_one_line_and_its_exit_code() {
    let place = RedisFixture::new();
    let refusal = async |variable: &str, value: &str, words: &str| {
        let launch = place.server(0).env(variable, value);
        place.finish(launch).await.assert_refusal(64, words);
    };
    refusal("PASSWORDS_FOLDER", "", "PASSWORDS_FOLDER is required").await;
    refusal("PASSWORDS_FOLDER", "/nowhere", "/nowhere/").await;
    refusal("DATA_FOLDER", "/nowhere", "DATA_FOLDER: /nowhere").await;
    refusal("CONF_FOLDER", "/nowhere", "CONF_FOLDER: /nowhere/redis.conf").await;
    refusal("TLS_FOLDER", "/nowhere", "TLS_FOLDER: /nowhere/tls.crt").await;
    refusal("PORT", "63a9", "PORT: 63a9").await;
    refusal("SERVER", "no-such-server", "SERVER: there is no no-such-server").await;

    place.write_passwords("exporter", &[""]);
    refusal("PORT", "6379", "passwords/exporter holds no password").await;
    fs::remove_file(place.passwords().join("exporter")).unwrap();
    refusal("PORT", "6379", "passwords/exporter cannot be read").await;

    let conf = copy_of_conf(place.folder.path());
    fs::write(conf.join("users.acl"), "user default off\nuser node on #${NODE_PASSWORD}\n").unwrap();
    refusal("CONF_FOLDER", &conf.to_string_lossy(), "nothing is known of ${NODE_PASSWORD}").await;
}

#[tokio::test]
async fn every_line_of_a_password_file_is_good_and_nothing_else_is() {
    // Given passwords with everything that has a meaning to a shell or to a server's files.
    let mut place = RedisFixture::new();
    let odd = r#"it's "odd" \x41 $HOME `id` & #%"#;
    for user in ["admin", "replica", "node"] {
        place.write_passwords(user, &[odd, "", "second one"]);
    }
    place.start(0);
    place.wait_until_up(0).await;

    let whoami = |user, password| place.ask_as(user, password, 0, "ACL WHOAMI").trim_end().to_owned();
    assert_eq!(whoami("admin", odd), "admin");
    assert_eq!(whoami("admin", "second one"), "admin");
    for wrong in ["third one", "second", r#"it's "odd" A $HOME `id` & #%"#] {
        assert!(whoami("admin", wrong).contains("WRONGPASS"), "{wrong} is taken for a password");
    }
    assert!(place.ask_as("default", odd, 0, "PING").contains("WRONGPASS"), "`default` is let in");
    // The server understood the very password that it is to log in to its primary with.
    assert_eq!(place.ask(0, "CONFIG GET masterauth").lines().nth(1), Some(odd));
}

#[tokio::test]
async fn what_is_secret_is_in_no_command_line_and_in_files_for_the_server_alone() {
    let mut place = RedisFixture::new();
    place.start(0);
    place.wait_until_up(0).await;

    let proc = format!("/proc/{}/cmdline", place.process(0).pid());
    let command_line = String::from_utf8_lossy(&fs::read(proc).unwrap()).replace('\0', " ");
    assert!(command_line.contains("redis") || command_line.contains("valkey"), "{command_line}");
    assert!(!command_line.contains(&place.password("replica")), "{command_line}");
    let run = place.data(0).join("run");
    assert_eq!(fs::metadata(&run).unwrap().permissions(), Permissions::from_mode(0o040_700));
    for file in ["users.acl", "server.conf"] {
        let permissions = fs::metadata(run.join(file)).unwrap().permissions();
        assert_eq!(permissions, Permissions::from_mode(0o100_600), "{file}");
    }
    let users = fs::read_to_string(run.join("users.acl")).unwrap();
    assert!(!users.contains(&place.password("admin")) && !users.contains("${"), "{users}");
}

#[tokio::test]
async fn a_server_announces_its_name_and_address() {
    let mut place = RedisFixture::new();
    place.start(0);
    place.wait_until_up(0).await;
    let announced = place.map(0)[0].split(' ').nth(1).unwrap().to_owned();
    let (port, name) = (place.port(0), if place.is_tls() { ",localhost" } else { "" });
    let bus = port + 20;
    assert_eq!(announced, format!("127.0.0.1:{port}@{bus}{name}"));

    // Without an address, the one that its name stands for.
    let named = place.server(1).env("ANNOUNCE_HOSTNAME", "localhost").env("ANNOUNCE_IP", "").spawn().unwrap();
    place.wait_until_up(1).await;
    for setting in ["cluster-announce-ip", "replica-announce-ip"] {
        let address = place.ask(1, &format!("CONFIG GET {setting}"));
        assert!(["127.0.0.1", "::1"].contains(&address.lines().nth(1).unwrap()), "{address}");
    }
    drop(named);
}
