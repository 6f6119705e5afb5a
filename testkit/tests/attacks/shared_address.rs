//! A crowd of honest buyers behind one address, as behind the NAT of a mobile carrier, with bots among them. Each buyer
//! has an account and does what the storefront page does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use buyers::retry_after;
use rand::random;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::stack::SaleOptions;
use testkit::{Stack, StackOptions};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fixture::{STACK_LOCK, accounts, token_of};

/// Size of the crowd. The environment variable `CROWD` sets another one for a run by hand.
const BUYERS: usize = 400;
const BOTS: usize = 4;
/// Connections of a bot. It sends the next request as soon as it has an answer.
const CONNECTIONS_PER_BOT: usize = 4;
/// Time from the first click to the answers.
const FIRST_MINUTE: Duration = Duration::from_mins(1);
/// Time over which the visitors open the page before the sale.
const ARRIVAL: Duration = Duration::from_secs(2);

/// Figures of the storefront page: `attempt.js` and `live.js`.
const TRIES_MAX: u32 = 8;
const WAIT_MAX: Duration = Duration::from_secs(30);
const ATTEMPT_SPREAD: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];
const FOLLOW_SPREAD: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];
/// Time after which a buyer whose attempt has ended without an answer presses the button again.
const SECOND_THOUGHT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn crowd_behind_one_address_is_answered_despite_bots() {
    // Given a crowd that opens the page, and a sale with a unit for half of it.
    let _stack_lock = STACK_LOCK.lock().await;
    service::files::raise_open_files_limit();
    let buyers = std::env::var("CROWD").map_or(BUYERS, |count| count.parse().unwrap());
    let shop = Arc::new(Shop::open(buyers).await);
    let visitors = (0..buyers).map(|number| Visitor::new(&shop, format!("buyer-{number}")));
    let visitors: Vec<_> = visitors.map(Arc::new).collect();
    let mut pages = JoinSet::new();
    for visitor in &visitors {
        pages.spawn(Arc::clone(visitor).follow());
    }
    // And bots that send as many requests as they can.
    let mut bots = JoinSet::new();
    for number in 0..BOTS * CONNECTIONS_PER_BOT {
        let bot = Visitor::new(&shop, format!("bot-{}", number % BOTS));
        bots.spawn(async move { bot.hammer().await });
    }
    sleep(ARRIVAL + Duration::from_secs(1)).await;

    // When all buyers press the button at the same time.
    let began = Instant::now();
    let mut attempts = JoinSet::new();
    for visitor in visitors {
        attempts
            .spawn(async move { timeout(FIRST_MINUTE, visitor.buy()).await.ok().map(|()| began.elapsed()) });
    }
    let mut answered: Vec<Duration> = attempts.join_all().await.into_iter().flatten().collect();
    answered.sort_unstable();
    let of = |percent: usize| answered.get(answered.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{} of {buyers} buyers had an answer within the minute: half after {:.1?}, 99 % after {:.1?}; answers: {:?}; \
         the bots sent {} requests",
        answered.len(),
        of(50),
        of(99),
        shop.tally(),
        shop.bot_requests.load(Ordering::Relaxed)
    );

    // Then each of them has a definite answer within the first minute.
    assert_eq!(answered.len(), buyers);
    bots.abort_all();
    pages.abort_all();
    let audit = shop.stack.audit("flash").await.unwrap();
    assert!(audit.ok && audit.sold == audit.total, "{audit:?}");
}

/// The shop, and what its visitors saw.
struct Shop {
    stack: Stack,
    client: Client,
    url: String,
    counts: [(&'static str, AtomicU32); 6],
    bot_requests: AtomicU32,
}

impl Shop {
    async fn open(buyers: usize) -> Self {
        let options = StackOptions {
            sale: SaleOptions { total_stock: buyers as u64 / 2, ..SaleOptions::default() },
            node_environment: accounts(),
            ..StackOptions::default()
        };
        let stack = Stack::start(options, |_| ()).await.unwrap();
        let url = stack.url();
        let client = Client::builder().pool_max_idle_per_host(usize::MAX).build().unwrap();
        let counts = ["200", "409", "429", "503", "lost", "other"].map(|name| (name, AtomicU32::new(0)));
        Self { stack, client, url, counts, bot_requests: AtomicU32::new(0) }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    fn count(&self, status: u16) {
        let name = match status {
            200 | 409 | 429 | 503 => status.to_string(),
            0 => "lost".to_owned(),
            _ => "other".to_owned(),
        };
        let (_, count) = self.counts.iter().find(|(counted, _)| *counted == name).unwrap();
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn tally(&self) -> Vec<(&str, u32)> {
        self.counts.iter().map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect()
    }
}

/// A person with an account and an open page.
struct Visitor {
    shop: Arc<Shop>,
    token: String,
}

impl Visitor {
    fn new(shop: &Arc<Shop>, user: String) -> Self {
        Self { shop: Arc::clone(shop), token: token_of(&user) }
    }

    /// Follows the sale as `live.js` does: the status, then the event stream, and the status again without one.
    async fn follow(self: Arc<Self>) {
        sleep(ARRIVAL.mul_f64(random())).await;
        let mut failures = 0;
        loop {
            let status = self.shop.get("/api/sale/status").send().await;
            let has_status = status.is_ok_and(|status| status.status() == 200);
            failures = if has_status { 0 } else { failures + 1 };
            if has_status && let Ok(mut stream) = self.shop.get("/api/sale/events").send().await {
                while stream.status() == 200 && stream.chunk().await.is_ok_and(|chunk| chunk.is_some()) {}
            }
            sleep(backoff(failures + 1, FOLLOW_SPREAD)).await;
        }
    }

    /// Presses the button until there is a definite answer.
    async fn buy(&self) {
        while !self.attempt().await {
            sleep(SECOND_THOUGHT.mul_f64(random())).await;
        }
    }

    /// Makes one attempt as `attempt.js` does. Returns true when it ended with a definite answer.
    async fn attempt(&self) -> bool {
        let csrf = self.shop.get("/api/csrf").send().await;
        let csrf = match csrf {
            Ok(answer) if answer.status() == 200 => answer.json::<Value>().await.unwrap()["csrfToken"].take(),
            _ => Value::Null,
        };
        let key = format!("{:032x}", random::<u128>());
        for tries in 1..=TRIES_MAX {
            let answer = self.purchase(&key, csrf.as_str()).await;
            let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            self.shop.count(status);
            if matches!(status, 200 | 409) {
                return true;
            }
            let asked_for = answer.ok().and_then(|answer| retry_after(&answer)).unwrap_or_default();
            if asked_for > WAIT_MAX {
                return false;
            }
            sleep(asked_for + backoff(tries, ATTEMPT_SPREAD)).await;
        }
        false
    }

    async fn purchase(&self, key: &str, csrf: Option<&str>) -> reqwest::Result<Response> {
        let url = format!("{}/api/sale/purchase", self.shop.url);
        let request = self.shop.client.post(url).bearer_auth(&self.token).header("idempotency-key", key);
        let request = request.header("sec-fetch-site", "same-origin").timeout(Duration::from_secs(15));
        let request = match csrf {
            Some(csrf) => request.header("x-csrf-token", csrf).header("cookie", format!("csrfToken={csrf}")),
            None => request,
        };
        request.json(&json!({})).send().await
    }

    /// Sends purchases without a pause.
    async fn hammer(&self) {
        loop {
            let _answer = self.purchase("bot", None).await;
            self.shop.bot_requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns a random time whose range doubles with each failure, as `pause.js` does.
fn backoff(failures: u32, [first, most]: [Duration; 2]) -> Duration {
    most.min(first * 2_u32.pow(failures.min(10) - 1)).mul_f64(random())
}
