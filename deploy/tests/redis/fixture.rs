//! Test fixture: servers started by `start.sh`, and runs of the other scripts and of `flashsale-coordinator cluster`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use testkit::{
    Folder, Launch, Process, ServerBinary, binary,
    ports::PortBlock,
    security::{make_certificates, new_password},
    until,
};

/// Time limit for anything that should happen soon, on a busy machine.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

const USERS: [&str; 6] = ["node", "coordinator", "ledger", "exporter", "replica", "admin"];
/// Maximum number of servers in a test. The bus ports of a block follow after this many ports.
const SERVERS_MAX: u16 = 20;

/// Servers on the loopback address, by number. Numbers 0 and 1 are the first pair.
pub(crate) struct RedisFixture {
    // Fields are dropped in this order: the folder and the ports last.
    servers: Vec<Option<Process>>,
    binary: ServerBinary,
    tls: bool,
    runs: AtomicU32,
    pub(crate) folder: Folder,
    pub(crate) ports: PortBlock,
}

/// The result of a script or program.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
}

impl Outcome {
    pub(crate) fn assert_ok(&self) {
        assert_eq!(self.code, Some(0), "{}", self.output);
    }

    /// Asserts that it failed with this code and one line that contains `words`.
    pub(crate) fn assert_refusal(&self, code: i32, words: &str) {
        assert!(
            self.code == Some(code) && self.output.contains(words),
            "exit {:?}: {}",
            self.code,
            self.output
        );
        assert_eq!(self.output.trim_end().lines().count(), 1, "one line: {}", self.output);
    }
}

impl RedisFixture {
    /// Creates a fixture without running servers. It has passwords, and certificates when the server program supports
    /// TLS.
    pub(crate) fn new() -> Self {
        let binary = ServerBinary::find().unwrap();
        let tls = binary.supports_tls().unwrap();
        let (folder, ports) = (Folder::temporary().unwrap(), PortBlock::take().unwrap());
        let fixture = Self { servers: Vec::new(), binary, tls, runs: AtomicU32::new(0), folder, ports };
        USERS.iter().for_each(|user| fixture.write_passwords(user, &[&new_password()]));
        if tls {
            make_certificates(&fixture.folder.subfolder("tls").unwrap(), "localhost").unwrap();
        }
        fixture
    }

    /// Creates a fixture with running servers that form a cluster.
    pub(crate) async fn with_cluster_of(pairs: u16) -> Self {
        let mut fixture = Self::new();
        fixture.start_all(pairs).await;
        fixture.cluster(pairs, &[]).await.assert_ok();
        fixture
    }

    pub(crate) async fn start_all(&mut self, pairs: u16) {
        (0..2 * pairs).for_each(|number| self.start(number));
        for number in 0..2 * pairs {
            self.wait_until_up(number).await;
        }
    }

    /// Starts a server with the data of its previous run, if any. It may not answer yet.
    pub(crate) fn start(&mut self, number: u16) {
        let at = usize::from(number);
        self.servers.resize_with(self.servers.len().max(at + 1), || None);
        self.servers[at] = None;
        self.servers[at] = Some(self.server(number).spawn().unwrap());
    }

    pub(crate) async fn wait_until_up(&self, number: u16) {
        let up = async || self.query(number, "PING").trim_end() == "PONG";
        until("a server's answer", TIME_LIMIT, up).await.unwrap_or_else(|late| {
            panic!("{late:#}{}", self.process(number).log_tail());
        });
    }

    pub(crate) fn is_running(&self, number: u16) -> bool {
        self.servers.get(usize::from(number)).is_some_and(Option::is_some)
    }

    pub(crate) fn process(&self, number: u16) -> &Process {
        self.servers[usize::from(number)].as_ref().expect("it was started")
    }

    pub(crate) fn kill(&mut self, number: u16) {
        self.servers[usize::from(number)] = None;
    }

    /// Launches a server: `start.sh` with the environment of its container.
    pub(crate) fn server(&self, number: u16) -> Launch {
        let bus = self.ports.first() + SERVERS_MAX + number;
        let launch = self.in_container(number, &format!("redis-{number}"), "start.sh");
        launch.args(["--bind", "127.0.0.1", "--cluster-port", &bus.to_string()])
    }

    /// Runs the handover of a server, as its container does before it stops.
    pub(crate) async fn hand_over(&self, number: u16) -> Outcome {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let launch = self.in_container(number, &format!("handover-{run}"), "handover.sh");
        self.finish(launch.env("CLI", "redis-cli")).await
    }

    /// Runs the readiness probe of a server's container.
    pub(crate) async fn ready(&self, number: u16) -> Outcome {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let launch = self.in_container(number, &format!("ready-{run}"), "ready.sh");
        self.finish(launch.env("CLI", "redis-cli")).await
    }

    /// Launches a script in a server's container.
    fn in_container(&self, number: u16, name: &str, file: &str) -> Launch {
        let data = self.data(number);
        let launch = Launch::new(name, script(file), self.folder.path())
            .env("PASSWORDS_FOLDER", self.server_passwords().display())
            .env("DATA_FOLDER", data.display())
            .env("RUN_FOLDER", data.join("run").display())
            .env("PORT", self.port(number))
            .env("ANNOUNCE_IP", "127.0.0.1")
            .env("SERVER", self.binary.path().display());
        if !self.tls {
            return launch;
        }
        launch.env("TLS_FOLDER", self.certificates().display()).env("ANNOUNCE_HOSTNAME", "localhost")
    }

    pub(crate) fn data(&self, number: u16) -> PathBuf {
        self.folder.subfolder(&format!("data-{number}")).unwrap()
    }

    /// Kills a server and deletes its data.
    pub(crate) fn lose_data(&mut self, number: u16) {
        self.kill(number);
        fs::remove_dir_all(self.data(number)).unwrap();
    }

    /// Runs `flashsale-coordinator cluster` for the first `pairs` pairs of servers. Without arguments it grows.
    pub(crate) async fn cluster(&self, pairs: u16, arguments: &[&str]) -> Outcome {
        let arguments = if arguments.is_empty() { &["grow"] } else { arguments };
        self.finish(self.cluster_command(pairs).args(arguments)).await
    }

    pub(crate) fn cluster_launch(&self, pairs: u16) -> Launch {
        self.cluster_command(pairs).arg("grow")
    }

    fn cluster_command(&self, pairs: u16) -> Launch {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let program = binary("flashsale-coordinator").unwrap();
        let scheme = if self.tls { "rediss" } else { "redis" };
        let launch = Launch::new(format!("cluster-{run}"), program, self.folder.path())
            .arg("cluster")
            .env("PAIRS", self.pairs(pairs))
            .env("REDIS_URL", format!("{scheme}://localhost:{}", self.port(0)))
            .env("REDIS_USERNAME", "admin")
            .env("REDIS_PASSWORD_FILE", self.passwords().join("admin").display())
            .env("WAIT_LIMIT", "30s");
        if self.tls {
            return launch.env("REDIS_CA_FILE", self.certificates().join("ca.crt").display());
        }
        launch
    }

    /// Runs a script to its end.
    pub(crate) async fn finish(&self, launch: Launch) -> Outcome {
        let process = launch.spawn().unwrap();
        let code = process
            .wait(TIME_LIMIT)
            .await
            .unwrap_or_else(|late| panic!("{late:#}{}", process.log_tail()))
            .code();
        let output = fs::read_to_string(process.log()).unwrap();
        fs::remove_file(process.log()).unwrap();
        Outcome { code, output }
    }

    /// Launches the update of the passwords of the first `pairs` pairs of servers, as in a server's container. Each run
    /// has its own log.
    pub(crate) fn rotation(&self, pairs: u16) -> Launch {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let launch = Launch::new(format!("rotate-{run}"), "/bin/sh", self.folder.path())
            .args(["-c", r#"exec "$0" < "$1""#])
            .args([script("rotate.sh"), self.passwords().join("admin")])
            .env("PAIRS", self.pairs(pairs))
            .env("PASSWORDS_FOLDER", self.server_passwords().display())
            .env("CLI", "redis-cli");
        if self.tls { launch.env("TLS_FOLDER", self.certificates().display()) } else { launch }
    }

    fn pairs(&self, pairs: u16) -> String {
        let addr = |number| format!("localhost:{}", self.port(number));
        let pairs = (0..pairs).map(|pair| format!("{},{}", addr(2 * pair), addr(2 * pair + 1)));
        pairs.collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn port(&self, number: u16) -> u16 {
        assert!(number < SERVERS_MAX, "there are ports for {SERVERS_MAX} servers");
        self.ports.first() + number
    }

    /// Returns the folder with the passwords of all users. No server can read it.
    pub(crate) fn passwords(&self) -> PathBuf {
        self.folder.subfolder("passwords").unwrap()
    }

    /// Returns the folder that the servers read: the password of `replica`, and hashes of the others.
    pub(crate) fn server_passwords(&self) -> PathBuf {
        self.folder.subfolder("servers").unwrap()
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.path().join("tls")
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn write_passwords(&self, user: &str, passwords: &[&str]) {
        let file = self.passwords().join(user);
        fs::write(&file, passwords.join("\n") + "\n").unwrap();
        if user == "replica" {
            fs::copy(&file, self.server_passwords().join(user)).unwrap();
            return;
        }
        let hashes = Command::new(script("hashes.sh")).arg(&file).output().unwrap();
        assert!(hashes.status.success(), "{hashes:?}");
        fs::write(self.server_passwords().join(format!("{user}.sha256")), hashes.stdout).unwrap();
    }

    /// Returns the first password of a user.
    pub(crate) fn password(&self, user: &str) -> String {
        let passwords = fs::read_to_string(self.passwords().join(user)).unwrap();
        passwords.lines().next().unwrap().to_owned()
    }

    /// Sends a command to a server as the operator.
    pub(crate) fn query(&self, number: u16, command: &str) -> String {
        self.query_as("admin", &self.password("admin"), number, command)
    }

    /// Sends a command to a server, with arguments separated by spaces. Returns the reply or the error.
    pub(crate) fn query_as(&self, user: &str, password: &str, number: u16, command: &str) -> String {
        let mut cli = self.client(user, password, number);
        let output = cli.args(command.split(' ')).output().expect("redis-cli runs");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).replace('\r', "")
    }

    /// Returns a command-line client that logs in as this user.
    pub(crate) fn client(&self, user: &str, password: &str, number: u16) -> Command {
        let mut cli = Command::new("redis-cli");
        cli.env("REDISCLI_AUTH", password).args(["--user", user, "-h", "localhost", "-p"]);
        cli.arg(self.port(number).to_string());
        if self.tls {
            cli.arg("--tls").arg("--cacert").arg(self.certificates().join("ca.crt"));
        }
        cli
    }

    /// Returns a server's id in the cluster.
    pub(crate) fn id(&self, number: u16) -> String {
        self.query(number, "CLUSTER MYID").trim_end().to_owned()
    }

    /// Returns a server's view of the cluster, without the fields that change every second.
    pub(crate) fn map(&self, number: u16) -> Vec<String> {
        let nodes = self.query(number, "CLUSTER NODES");
        let stable_fields = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let is_stable = |(at, _): &(usize, &&str)| *at != 4 && *at != 5;
            words.iter().enumerate().filter(is_stable).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
        };
        let mut lines: Vec<String> = nodes.trim_end().lines().map(stable_fields).collect();
        lines.sort();
        lines
    }

    /// Returns the number of each pair's primary and its slots, from `cluster check`.
    pub(crate) async fn leaders(&self, pairs: u16) -> Vec<(u16, u32)> {
        let table = self.cluster(pairs, &["check"]).await;
        table.assert_ok();
        table.output.lines().skip(1).map(|line| self.row(line)).collect()
    }

    fn row(&self, line: &str) -> (u16, u32) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port: u16 = words[1].rsplit(':').next().unwrap().parse().unwrap();
        (port - self.ports.first(), words[3].parse().unwrap())
    }

    /// Returns true when a server reports that it is a primary.
    pub(crate) fn leads(&self, number: u16) -> bool {
        self.query(number, "ROLE").starts_with("master")
    }

    /// Promotes a replica.
    pub(crate) async fn fail_over_to(&self, number: u16) {
        let leads = async || {
            self.query(number, "CLUSTER FAILOVER");
            self.leads(number)
        };
        until("a failover", TIME_LIMIT, leads).await.unwrap();
    }

    /// Writes a key to its shard.
    pub(crate) fn write(&self, key: &str, value: &str) {
        assert_eq!(self.query_cluster(&format!("SET {key} {value}\n")), ["OK"]);
    }

    /// Reads a key from its shard.
    pub(crate) fn read(&self, key: &str) -> String {
        self.query_cluster(&format!("GET {key}\n")).remove(0)
    }

    /// Sends commands, one per line, to the servers of their keys. Returns the replies, one per line.
    pub(crate) fn query_cluster(&self, commands: &str) -> Vec<String> {
        let mut cli = self.client("admin", &self.password("admin"), 0);
        let mut cli = cli
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = cli.stdin.take().unwrap();
        let commands = commands.to_owned();
        // Writes in a thread while the replies are read: both may be larger than a pipe's buffer.
        let writing = std::thread::spawn(move || stdin.write_all(commands.as_bytes()));
        let output = cli.wait_with_output().unwrap();
        writing.join().unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let answers = lines.lines().filter(|line| !line.starts_with("-> Redirected"));
        answers.map(|line| line.trim_end().to_owned()).collect()
    }
}

/// Returns a cluster with one key, and the number of the primary that holds it.
pub(crate) async fn cluster_with_a_key() -> (RedisFixture, u16) {
    let fixture = RedisFixture::with_cluster_of(3).await;
    fixture.write("fs:{a}:meta", "kept");
    let holds_key = |number: &u16| fixture.query(*number, "DBSIZE").trim_end() == "1";
    let holder = [0, 2, 4].into_iter().find(holds_key).expect("a primary holds the key");
    (fixture, holder)
}

pub(crate) fn script(name: &str) -> PathBuf {
    deploy::folder().join("redis").join(name)
}

/// Returns a copy of the files that the scripts read, which a test can change.
pub(crate) fn copy_of_conf(folder: &Path) -> PathBuf {
    let copy = folder.join("conf");
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(deploy::folder().join("redis")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}
