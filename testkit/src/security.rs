//! A cluster that lets in whom it knows: certificates, users and passwords, by the very files that are deployed.
//!
//! Certificates are good for the name `localhost` and no address: whoever connects by another name than the cluster's map
//! gives, or does not ask whose certificate it is, is found out. Every server has a copy of the users of its own, as it has
//! in a container. A server program without TLS gets users alone.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rand::random;
use redis::{Client, ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use sha2::{Digest, Sha256};

use crate::{Folder, ServerBinary, workspace_root};

/// What every server calls itself, and what its certificate is good for.
const HOSTNAME: &str = "localhost";

/// The users of `deploy/redis/users.acl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Nodes.
    Node,
    /// Coordinators.
    Coordinator,
    /// Whoever reads figures for Prometheus.
    Exporter,
    /// Replicas, at their primaries.
    Replica,
    /// Operators; in tests the testkit itself.
    Admin,
}

impl User {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Node, Self::Coordinator, Self::Exporter, Self::Replica, Self::Admin];

    /// Its name in Redis, and that of the file with its password.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Coordinator => "coordinator",
            Self::Exporter => "exporter",
            Self::Replica => "replica",
            Self::Admin => "admin",
        }
    }
}

/// What a secured cluster and those who log in to it need.
#[derive(Debug)]
pub struct Security {
    folder: PathBuf,
    tls: bool,
}

impl Security {
    /// Makes certificates, where the server can use them, and passwords.
    pub(crate) fn make(folder: &Folder, binary: &ServerBinary) -> Result<Self> {
        let security = Self { folder: folder.subfolder("security")?, tls: binary.speaks_tls()? };
        if security.tls {
            make_certificates(&security.folder, HOSTNAME)?;
        }
        User::ALL.into_iter().try_for_each(|user| security.set_password(user, &new_password()))?;
        Ok(security)
    }

    /// Whether TLS is spoken; else the server program cannot.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Where the authority's certificate is, if TLS is spoken.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.tls.then(|| self.folder.join("ca.crt"))
    }

    /// Where a user's password is, as a line of text.
    pub fn password_file(&self, user: User) -> PathBuf {
        self.folder.join(user.name())
    }

    /// A user's password.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn password(&self, user: User) -> Result<String> {
        Ok(fs::read_to_string(self.password_file(user))?.trim_end().to_owned())
    }

    /// Writes another password down, for those who start from now on. The servers are not told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_password(&self, user: User, password: &str) -> Result<()> {
        Ok(fs::write(self.password_file(user), format!("{password}\n"))?)
    }

    /// The variables with which a program logs in as this user.
    pub fn environment(&self, user: User) -> Vec<(&'static str, String)> {
        let file = self.password_file(user).display().to_string();
        let login = [("REDIS_USERNAME", user.name().to_owned()), ("REDIS_PASSWORD_FILE", file)];
        let ca = self.ca_file().map(|file| ("REDIS_CA_FILE", file.display().to_string()));
        login.into_iter().chain(ca).collect()
    }

    /// A server's address as `REDIS_URL` wants it.
    pub fn url(&self, addr: SocketAddr) -> String {
        if self.tls { format!("rediss://{HOSTNAME}:{}", addr.port()) } else { format!("redis://{addr}") }
    }

    /// How this user reaches a server.
    ///
    /// # Errors
    /// When a file of ours cannot be read.
    pub fn login(&self, addr: SocketAddr, user: User) -> Result<ConnectionInfo> {
        let info = self.url(addr).into_connection_info()?;
        let login = info.redis_settings().clone();
        let login = login.set_username(user.name()).set_password(self.password(user)?);
        self.trusting(info.set_redis_settings(login))
    }

    fn trusting(&self, info: ConnectionInfo) -> Result<ConnectionInfo> {
        let Some(ca) = self.ca_file() else { return Ok(info) };
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(fs::read(ca)?) };
        choose_cryptography();
        Ok(Client::build_with_tls(info, certificates)?.get_connection_info().clone())
    }

    /// What the command line of a server says, whose data is in this folder.
    pub(crate) fn settings(&self, port: u16, data: &Path) -> Result<Vec<String>> {
        let (users, secrets) = (data.join("users.acl"), data.join("secrets.conf"));
        if !users.exists() {
            fs::write(&users, self.users()?)?;
        }
        // Not on the command line, which everybody on the machine can read.
        let password = self.password(User::Replica)?;
        fs::write(&secrets, format!("masteruser {}\nmasterauth {password}\n", User::Replica.name()))?;
        let path = |path: PathBuf| path.display().to_string();
        let mut settings = vec!["--aclfile".into(), path(users), "--include".into(), path(secrets)];
        if self.tls {
            settings.extend(["--include".into(), path(deployed("tls.conf"))]);
            settings.extend(["--tls-port".into(), port.to_string()]);
            for (setting, file) in [
                ("--tls-cert-file", "tls.crt"),
                ("--tls-key-file", "tls.key"),
                ("--tls-ca-cert-file", "ca.crt"),
            ] {
                settings.extend([setting.into(), path(self.folder.join(file))]);
            }
            settings.extend(["--cluster-announce-hostname", HOSTNAME].map(String::from));
            settings.extend(["--cluster-preferred-endpoint-type", "hostname"].map(String::from));
        } else {
            settings.extend(["--port".into(), port.to_string()]);
        }
        Ok(settings)
    }

    /// The deployed users, with the digests of these passwords.
    fn users(&self) -> Result<String> {
        let template = fs::read_to_string(deployed("users.acl"))?;
        let users = User::ALL.into_iter().try_fold(template, |users, user| {
            let place = format!("${{{}_PASSWORD_SHA256}}", user.name().to_uppercase());
            anyhow::Ok(users.replace(&place, &digest(&self.password(user)?)))
        })?;
        ensure!(!users.contains("${"), "users.acl has a placeholder that nobody fills in: {users}");
        Ok(users)
    }
}

/// A password that nobody guesses.
pub fn new_password() -> String {
    format!("{:032x}", random::<u128>())
}

/// Makes an authority and a server's certificate for these comma-separated names, by the script that is deployed.
///
/// # Errors
/// When it fails: with its words.
pub fn make_certificates(folder: &Path, names: &str) -> Result<()> {
    let script = deployed("certificates.sh");
    let made = Command::new("sh").arg(&script).arg(folder).arg(names).output().context("sh does not run")?;
    ensure!(made.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// What TLS encrypts with, for the whole process: the library of connections leaves it to us.
pub fn choose_cryptography() {
    // Whoever chose before us chose the same.
    rustls::crypto::ring::default_provider().install_default().ok();
}

fn deployed(file: &str) -> PathBuf {
    workspace_root().join("deploy/redis").join(file)
}

fn digest(password: &str) -> String {
    Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect()
}
