//! A cluster with authentication: certificates, users and passwords, from the deployed files.
//!
//! Certificates are valid for the name `localhost` and for no address. This reveals clients that connect by a name
//! other than the one in the cluster's map, or that do not verify certificates. Every server has its own copy of the
//! users file, as in a container. A server program without TLS has users only.

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

/// The host name that every server announces and that its certificate is valid for.
const HOSTNAME: &str = "localhost";

/// The users of `deploy/redis/users.acl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Nodes.
    Node,
    /// Coordinators.
    Coordinator,
    /// Ledgers.
    Ledger,
    /// Readers of metrics for Prometheus.
    Exporter,
    /// Replicas, which log in at their primaries.
    Replica,
    /// Operators. In tests, the testkit itself.
    Admin,
}

impl User {
    /// All users.
    pub const ALL: [Self; 6] =
        [Self::Node, Self::Coordinator, Self::Ledger, Self::Exporter, Self::Replica, Self::Admin];

    /// The user's name in Redis and the name of its password file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Coordinator => "coordinator",
            Self::Ledger => "ledger",
            Self::Exporter => "exporter",
            Self::Replica => "replica",
            Self::Admin => "admin",
        }
    }
}

/// The files of a secured cluster and of its clients.
#[derive(Debug)]
pub struct Security {
    folder: PathBuf,
    tls: bool,
}

impl Security {
    /// Creates passwords and, when the server program supports TLS, certificates.
    pub(crate) fn create(folder: &Folder, binary: &ServerBinary) -> Result<Self> {
        let security = Self { folder: folder.subfolder("security")?, tls: binary.supports_tls()? };
        if security.tls {
            make_certificates(&security.folder, HOSTNAME)?;
        }
        User::ALL.into_iter().try_for_each(|user| security.set_password(user, &new_password()))?;
        Ok(security)
    }

    /// Returns true when the servers use TLS. They do whenever the server program supports it.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The path of the authority's certificate, or `None` without TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.tls.then(|| self.folder.join("ca.crt"))
    }

    /// The path of a user's password file, which contains one line of text.
    pub fn password_file(&self, user: User) -> PathBuf {
        self.folder.join(user.name())
    }

    /// Reads a user's password.
    ///
    /// # Errors
    /// Fails when the password file cannot be read.
    pub fn password(&self, user: User) -> Result<String> {
        Ok(fs::read_to_string(self.password_file(user))?.trim_end().to_owned())
    }

    /// Writes a new password for programs that start from now on. The servers do not learn of it.
    ///
    /// # Errors
    /// Fails when the password file cannot be written.
    pub fn set_password(&self, user: User, password: &str) -> Result<()> {
        Ok(fs::write(self.password_file(user), format!("{password}\n"))?)
    }

    /// The environment variables with which a program logs in as this user.
    pub fn environment(&self, user: User) -> Vec<(&'static str, String)> {
        let file = self.password_file(user).display().to_string();
        let login = [("REDIS_USERNAME", user.name().to_owned()), ("REDIS_PASSWORD_FILE", file)];
        let ca = self.ca_file().map(|file| ("REDIS_CA_FILE", file.display().to_string()));
        login.into_iter().chain(ca).collect()
    }

    /// A server's address in the format of `REDIS_URL`.
    pub fn url(&self, addr: SocketAddr) -> String {
        if self.tls { format!("rediss://{HOSTNAME}:{}", addr.port()) } else { format!("redis://{addr}") }
    }

    /// Returns the connection settings of a user for one server.
    ///
    /// # Errors
    /// Fails when the password or the certificate file cannot be read.
    pub fn login(&self, addr: SocketAddr, user: User) -> Result<ConnectionInfo> {
        let info = self.url(addr).into_connection_info()?;
        let login = info.redis_settings().clone();
        let login = login.set_username(user.name()).set_password(self.password(user)?);
        self.with_ca_certificate(info.set_redis_settings(login))
    }

    fn with_ca_certificate(&self, info: ConnectionInfo) -> Result<ConnectionInfo> {
        let Some(ca) = self.ca_file() else { return Ok(info) };
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(fs::read(ca)?) };
        install_crypto_provider();
        Ok(Client::build_with_tls(info, certificates)?.get_connection_info().clone())
    }

    /// Returns the command line arguments of a server whose data is in the folder `data`.
    pub(crate) fn settings(&self, port: u16, data: &Path) -> Result<Vec<String>> {
        let (users, secrets) = (data.join("users.acl"), data.join("secrets.conf"));
        if !users.exists() {
            fs::write(&users, self.users()?)?;
        }
        // Passwords go to a file, because every user of the machine can read command lines.
        let password = self.password(User::Replica)?;
        fs::write(&secrets, format!("masteruser {}\nmasterauth {password}\n", User::Replica.name()))?;
        let path = |path: PathBuf| path.display().to_string();
        let mut settings = vec!["--aclfile".into(), path(users), "--include".into(), path(secrets)];
        if self.tls {
            settings.extend(["--include".into(), path(deployed_file("tls.conf"))]);
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

    /// Returns the deployed users file with the digests of these passwords.
    fn users(&self) -> Result<String> {
        let template = fs::read_to_string(deployed_file("users.acl"))?;
        let users = User::ALL.into_iter().try_fold(template, |users, user| {
            let placeholder = format!("${{{}_PASSWORD_SHA256}}", user.name().to_uppercase());
            anyhow::Ok(users.replace(&placeholder, &digest(&self.password(user)?)))
        })?;
        ensure!(!users.contains("${"), "users.acl contains an unknown placeholder: {users}");
        Ok(users)
    }
}

/// Returns a random password of 128 bits.
pub fn new_password() -> String {
    format!("{:032x}", random::<u128>())
}

/// Creates an authority and a server certificate for the comma-separated `names`, with the deployed script.
///
/// # Errors
/// Fails when the script fails, with its message.
pub fn make_certificates(folder: &Path, names: &str) -> Result<()> {
    let script = deployed_file("certificates.sh");
    let made = Command::new("sh").arg(&script).arg(folder).arg(names).output().context("sh does not run")?;
    ensure!(made.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Installs the process-wide TLS crypto provider, which the Redis client library does not choose itself.
pub fn install_crypto_provider() {
    // The call fails when a provider is installed already. It is the same one.
    rustls::crypto::ring::default_provider().install_default().ok();
}

fn deployed_file(file: &str) -> PathBuf {
    workspace_root().join("deploy/redis").join(file)
}

/// Returns the SHA-256 of a password in hexadecimal digits, as the servers store it.
pub fn digest(password: &str) -> String {
    Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect()
}
