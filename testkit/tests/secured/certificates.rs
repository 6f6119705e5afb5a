//! The script that creates certificates.

use std::path::Path;
use std::process::{Command, Output};

use testkit::{Folder, security::make_certificates, workspace_root};

fn script(arguments: &[&str]) -> Output {
    let script = workspace_root().join("deploy/redis/certificates.sh");
    Command::new("sh").arg(script).args(arguments).output().unwrap()
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn certificate_has_requested_names_and_lifetime() {
    let folder = Folder::temporary().unwrap();
    let path = folder.path().to_str().unwrap();
    let made = script(&["--days", "2", path, "redis-a-0,*.flashsale.svc,10.0.0.1,::1"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let names = openssl(folder.path(), &["x509", "-in", "tls.crt", "-noout", "-ext", "subjectAltName"]);
    let wanted = "DNS:redis-a-0, DNS:*.flashsale.svc, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1";
    assert!(names.contains(wanted), "{names}");
    for (seconds, holds) in [(2 * 86_400 - 60, true), (2 * 86_400 + 60, false)] {
        let check = ["x509", "-in", "tls.crt", "-noout", "-checkend", &seconds.to_string()];
        let output = Command::new("openssl").args(check).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.success(), holds, "in {seconds} s");
    }
}

#[test]
fn new_certificate_keeps_authority_and_private_key_modes() {
    let folder = Folder::temporary().unwrap();
    let read = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
    make_certificates(folder.path(), "one").unwrap();
    let (authority, first) = (read("ca.crt"), read("tls.crt"));
    make_certificates(folder.path(), "two").unwrap();
    assert_eq!(read("ca.crt"), authority);
    assert_ne!(read("tls.crt"), first);
    openssl(folder.path(), &["verify", "-CAfile", "ca.crt", "tls.crt"]);
    for key in ["ca.key", "tls.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{key} can be read by others");
    }
}

#[test]
fn wrong_arguments_give_a_one_line_error() {
    let folder = Folder::temporary().unwrap();
    let path = folder.path().to_str().unwrap();
    for wrong in [
        &[path][..],
        &[path, ""],
        &[path, "a b"],
        &[path, "a,,b"],
        &["--days", "0", path, "a"],
        &["--days"],
        &["--days", "x", path, "a"],
        &[path, "a", "b"],
    ] {
        let output = script(wrong);
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), line.lines().count()), (Some(64), 1), "{wrong:?}: {line}");
    }
    assert!(!folder.path().join("tls.crt").exists());
}
