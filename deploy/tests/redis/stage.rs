//! The stage: servers as `start.sh` starts them, and what the other scripts say to them.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use testkit::{
    Folder, Launch, Process, ServerBinary,
    ports::PortBlock,
    security::{make_certificates, new_password},
    until,
};

/// Whatever has to happen happens by then, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(60);

const USERS: [&str; 5] = ["node", "coordinator", "exporter", "replica", "admin"];
/// The bus ports of a block follow after as many servers as any story has.
const SERVERS_MAX: u16 = 20;

/// Servers on the loopback address, by number; number 0 and 1 are the first pair.
pub(crate) struct RedisFixture {
    // In this order they are dropped: the folder and the ports go last.
    servers: Vec<Option<Process>>,
    binary: ServerBinary,
    tls: bool,
    runs: AtomicU32,
    pub(crate) folder: Folder,
    pub(crate) ports: PortBlock,
}

/// How a script ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl Outcome {
    pub(crate) fn assert_ok(&self) {
        assert_eq!(self.code, Some(0), "{}", self.said);
    }

    /// It refused with this code, in one line that has these words in it.
    pub(crate) fn assert_refusal(&self, code: i32, words: &str) {
        assert!(self.code == Some(code) && self.said.contains(words), "exit {:?}: {}", self.code, self.said);
        assert_eq!(self.said.trim_end().lines().count(), 1, "one line: {}", self.said);
    }
}

impl RedisFixture {
    /// Nothing runs yet; there are passwords, and certificates where the server program has a use for them.
    pub(crate) fn new() -> Self {
        let binary = ServerBinary::find().unwrap();
        let tls = binary.speaks_tls().unwrap();
        let (folder, ports) = (Folder::temporary().unwrap(), PortBlock::take().unwrap());
        let place = Self { servers: Vec::new(), binary, tls, runs: AtomicU32::new(0), folder, ports };
        USERS.iter().for_each(|user| place.write_passwords(user, &[&new_password()]));
        if tls {
            make_certificates(&place.folder.subfolder("tls").unwrap(), "localhost").unwrap();
        }
        place
    }

    /// Servers that run and a cluster that is made of them.
    pub(crate) async fn with_cluster_of(pairs: u16) -> Self {
        let mut place = Self::new();
        place.start_all(pairs).await;
        place.cluster(pairs, &[]).await.assert_ok();
        place
    }

    pub(crate) async fn start_all(&mut self, pairs: u16) {
        (0..2 * pairs).for_each(|number| self.start(number));
        for number in 0..2 * pairs {
            self.wait_until_up(number).await;
        }
    }

    /// Starts a server over what it left, if it was there before; it may not answer yet.
    pub(crate) fn start(&mut self, number: u16) {
        let at = usize::from(number);
        self.servers.resize_with(self.servers.len().max(at + 1), || None);
        self.servers[at] = None;
        self.servers[at] = Some(self.server(number).spawn().unwrap());
    }

    pub(crate) async fn wait_until_up(&self, number: u16) {
        let up = async || self.ask(number, "PING").trim_end() == "PONG";
        until("a server's answer", SOON, up).await.unwrap_or_else(|late| {
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

    /// How a server is started: `start.sh` with the environment that its container would give it.
    pub(crate) fn server(&self, number: u16) -> Launch {
        let bus = self.ports.first() + SERVERS_MAX + number;
        let launch = self.in_container(number, &format!("redis-{number}"), "start.sh");
        launch.args(["--bind", "127.0.0.1", "--cluster-port", &bus.to_string()])
    }

    /// Has a server hand over, as its container would before it stops.
    pub(crate) async fn hand_over(&self, number: u16) -> Outcome {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let launch = self.in_container(number, &format!("handover-{run}"), "handover.sh");
        self.finish(launch.env("CLI", "redis-cli")).await
    }

    /// Asks whether a server has what its pair has, as its container's probe would.
    pub(crate) async fn ready(&self, number: u16) -> Outcome {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let launch = self.in_container(number, &format!("ready-{run}"), "ready.sh");
        self.finish(launch.env("CLI", "redis-cli")).await
    }

    /// A script in a server's container.
    fn in_container(&self, number: u16, name: &str, file: &str) -> Launch {
        let data = self.data(number);
        let launch = Launch::new(name, script(file), self.folder.path())
            .env("PASSWORDS_FOLDER", self.passwords().display())
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

    /// Ends a server and forgets all that it had.
    pub(crate) fn lose(&mut self, number: u16) {
        self.kill(number);
        fs::remove_dir_all(self.data(number)).unwrap();
    }

    /// Runs `cluster.sh` over so many pairs, with these arguments.
    pub(crate) async fn cluster(&self, pairs: u16, arguments: &[&str]) -> Outcome {
        self.finish(self.cluster_launch(pairs).args(arguments)).await
    }

    pub(crate) fn cluster_launch(&self, pairs: u16) -> Launch {
        self.script("cluster.sh", pairs)
    }

    /// Runs a script to its end.
    pub(crate) async fn finish(&self, launch: Launch) -> Outcome {
        let process = launch.spawn().unwrap();
        let code =
            process.wait(SOON).await.unwrap_or_else(|late| panic!("{late:#}{}", process.log_tail())).code();
        let said = fs::read_to_string(process.log()).unwrap();
        fs::remove_file(process.log()).unwrap();
        Outcome { code, said }
    }

    /// A script that is told of so many pairs, each run with a log of its own.
    pub(crate) fn script(&self, name: &str, pairs: u16) -> Launch {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let addr = |number| format!("localhost:{}", self.port(number));
        let pairs: Vec<String> =
            (0..pairs).map(|pair| format!("{},{}", addr(2 * pair), addr(2 * pair + 1))).collect();
        let launch = Launch::new(format!("{name}-{run}"), script(name), self.folder.path())
            .env("PAIRS", pairs.join(" "))
            .env("PASSWORDS_FOLDER", self.passwords().display())
            .env("CLI", "redis-cli")
            .env("WAIT_LIMIT", 30);
        if self.tls { launch.env("TLS_FOLDER", self.certificates().display()) } else { launch }
    }

    pub(crate) fn port(&self, number: u16) -> u16 {
        assert!(number < SERVERS_MAX, "there are ports for {SERVERS_MAX} servers");
        self.ports.first() + number
    }

    pub(crate) fn passwords(&self) -> PathBuf {
        self.folder.subfolder("passwords").unwrap()
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.path().join("tls")
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn write_passwords(&self, user: &str, passwords: &[&str]) {
        fs::write(self.passwords().join(user), passwords.join("\n") + "\n").unwrap();
    }

    /// The first password of a user.
    pub(crate) fn password(&self, user: &str) -> String {
        let passwords = fs::read_to_string(self.passwords().join(user)).unwrap();
        passwords.lines().next().unwrap().to_owned()
    }

    /// Asks a server as the operator.
    pub(crate) fn ask(&self, number: u16, command: &str) -> String {
        self.ask_as("admin", &self.password("admin"), number, command)
    }

    /// Asks a server in words that are separated by blanks; the answer, or what went wrong.
    pub(crate) fn ask_as(&self, user: &str, password: &str, number: u16, command: &str) -> String {
        let mut cli = self.client(user, password, number);
        let output = cli.args(command.split(' ')).output().expect("redis-cli runs");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).replace('\r', "")
    }

    /// The command-line client, for whom a server lets in.
    pub(crate) fn client(&self, user: &str, password: &str, number: u16) -> Command {
        let mut cli = Command::new("redis-cli");
        cli.env("REDISCLI_AUTH", password).args(["--user", user, "-h", "localhost", "-p"]);
        cli.arg(self.port(number).to_string());
        if self.tls {
            cli.arg("--tls").arg("--cacert").arg(self.certificates().join("ca.crt"));
        }
        cli
    }

    /// A server's id in the cluster.
    pub(crate) fn id(&self, number: u16) -> String {
        self.ask(number, "CLUSTER MYID").trim_end().to_owned()
    }

    /// What a server knows of the cluster, without what changes from second to second.
    pub(crate) fn map(&self, number: u16) -> Vec<String> {
        let nodes = self.ask(number, "CLUSTER NODES");
        let lasting = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let of_the_moment = |(at, _): &(usize, &&str)| *at != 4 && *at != 5;
            words
                .iter()
                .enumerate()
                .filter(of_the_moment)
                .map(|(_, word)| *word)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut lines: Vec<String> = nodes.trim_end().lines().map(lasting).collect();
        lines.sort();
        lines
    }

    /// How many slots each pair's primary has, and which number leads it; by the table that operators get.
    pub(crate) async fn leaders(&self, pairs: u16) -> Vec<(u16, u32)> {
        let table = self.cluster(pairs, &["status"]).await;
        table.assert_ok();
        table.said.lines().skip(1).map(|line| self.row(line)).collect()
    }

    fn row(&self, line: &str) -> (u16, u32) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port: u16 = words[1].rsplit(':').next().unwrap().parse().unwrap();
        (port - self.ports.first(), words[3].parse().unwrap())
    }

    /// Whether a server says that it leads.
    pub(crate) fn leads(&self, number: u16) -> bool {
        self.ask(number, "ROLE").starts_with("master")
    }

    /// Makes a replica lead.
    pub(crate) async fn fail_over_to(&self, number: u16) {
        let leads = async || {
            self.ask(number, "CLUSTER FAILOVER");
            self.leads(number)
        };
        until("a failover", SOON, leads).await.unwrap();
    }

    /// Sets keys where they belong.
    pub(crate) fn write(&self, key: &str, value: &str) {
        assert_eq!(self.ask_the_cluster(&format!("SET {key} {value}\n")), ["OK"]);
    }

    /// Reads a key, wherever it is.
    pub(crate) fn read(&self, key: &str) -> String {
        self.ask_the_cluster(&format!("GET {key}\n")).remove(0)
    }

    /// Asks commands, a line each, of whoever has their keys; the answers, a line each.
    pub(crate) fn ask_the_cluster(&self, commands: &str) -> Vec<String> {
        let mut cli = self.client("admin", &self.password("admin"), 0);
        let mut cli = cli
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut questions = cli.stdin.take().unwrap();
        let commands = commands.to_owned();
        // Beside reading the answers: both may be more than a pipe holds.
        let asking = std::thread::spawn(move || questions.write_all(commands.as_bytes()));
        let output = cli.wait_with_output().unwrap();
        asking.join().unwrap().unwrap();
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let answers = lines.lines().filter(|line| !line.starts_with("-> Redirected"));
        answers.map(|line| line.trim_end().to_owned()).collect()
    }
}

/// A cluster with a key, and who leads the pair that has it.
pub(crate) async fn with_a_key() -> (RedisFixture, u16) {
    let place = RedisFixture::with_cluster_of(3).await;
    place.write("fs:{a}:meta", "kept");
    let has_it = |number: &u16| place.ask(*number, "DBSIZE").trim_end() == "1";
    let holder = [0, 2, 4].into_iter().find(has_it).expect("one of the primaries has it");
    (place, holder)
}

pub(crate) fn script(name: &str) -> PathBuf {
    deploy::folder().join("redis").join(name)
}

/// A copy of what the scripts read, to be changed.
pub(crate) fn copy_of_conf(folder: &Path) -> PathBuf {
    let copy = folder.join("conf");
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(deploy::folder().join("redis")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}
