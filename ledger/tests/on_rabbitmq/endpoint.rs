//! An HTTP endpoint that fails in all ways, over plain TCP.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use testkit::ports::loopback;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Secret of the webhook.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With this status line and further header lines.
    Status(&'static str),
    /// Twice with 200.
    TwiceOk,
    /// Not at all, and the connection stays open.
    Hang,
    /// Not at all, and the connection is closed.
    Close,
}

pub(crate) const OK: Answer = Answer::Status("200 OK");

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) answer: Answer,
}

impl Received {
    pub(crate) fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap()
    }
}

/// Chooses the answer to a request, given its number from 0 and its event.
type Behaviour = dyn Fn(usize, &Value) -> Answer + Send + Sync;

/// An endpoint that keeps all requests.
pub(crate) struct Endpoint {
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
    port: u16,
    serving: JoinHandle<()>,
}

impl Endpoint {
    pub(crate) async fn start(
        port: u16,
        behaviour: impl Fn(usize, &Value) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(loopback(port)).await.unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let behaviour: Arc<Mutex<Arc<Behaviour>>> = Arc::new(Mutex::new(Arc::new(behaviour)));
        let serving = tokio::spawn({
            let (received, behaviour) = (received.clone(), behaviour.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, received.clone(), behaviour.clone()));
                }
            }
        });
        Self { received, behaviour, port, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/orders?shop=1", self.port)
    }

    pub(crate) fn behave(&self, behaviour: impl Fn(usize, &Value) -> Answer + Send + Sync + 'static) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Ids of the events that were answered with success.
    pub(crate) fn accepted(&self) -> BTreeSet<String> {
        let accepted = self.received();
        let accepted = accepted.iter().filter(|request| [OK, Answer::TwiceOk].contains(&request.answer));
        accepted.map(|request| request.event()["id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    stream: TcpStream,
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = read(&mut stream).await {
        let answer = {
            let mut received = received.lock().unwrap();
            let choose = behaviour.lock().unwrap().clone();
            let answer = choose(received.len(), &serde_json::from_str(&body).unwrap());
            received.push(Received { head, body, answer: answer.clone() });
            answer
        };
        let text = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        let written = match answer {
            Answer::Status(status) => stream.write_all(text(status).as_bytes()).await,
            Answer::TwiceOk => stream.write_all(text("200 OK").repeat(2).as_bytes()).await,
            Answer::Hang => std::future::pending().await,
            Answer::Close => return,
        };
        if written.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8(body).ok()?))
}
