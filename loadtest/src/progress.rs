//! Prints one line of progress per second.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use buyers::AnswerKind;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{client::SaleClient, tally::Counts};

const EVERY: Duration = Duration::from_secs(1);

/// Prints progress until the returned task is dropped.
pub(crate) fn print_progress(sale_client: &Arc<SaleClient>) -> JoinSet<()> {
    let sale_client = Arc::clone(sale_client);
    JoinSet::from_iter([async move { print_lines(&sale_client).await }])
}

async fn print_lines(sale_client: &SaleClient) {
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = sale_client.tally.counts();
    clock.tick().await;
    loop {
        clock.tick().await;
        let now = sale_client.tally.counts();
        writeln!(io::stdout(), "{}", line(&before, &now)).ok();
        before = now;
    }
}

fn line(before: &Counts, now: &Counts) -> String {
    let seconds = (now.elapsed - before.elapsed).as_secs_f64();
    let rate = (now.requests - before.requests) as f64 / seconds;
    let outcomes = AnswerKind::OUTCOMES.iter().filter(|kind| now.of(**kind) > 0);
    let outcomes: Vec<String> = outcomes.map(|kind| format!("{} {}", kind, now.of(*kind))).collect();
    format!(
        "{:5.0} s  {:5} users  {rate:6.0} requests/s  errors {}  {}",
        now.elapsed.as_secs_f64(),
        now.users,
        now.errors(),
        outcomes.join(", ")
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn line_has_totals_and_the_current_rate() {
        let at = |seconds, requests| Counts {
            elapsed: Duration::from_secs(seconds),
            users: 500,
            requests,
            outcomes: BTreeMap::from([
                (AnswerKind::Data, 9),
                (AnswerKind::Purchased, 100),
                (AnswerKind::NoAnswer, 2),
            ]),
            ..Counts::default()
        };
        assert_eq!(
            line(&at(10, 1000), &at(12, 1900)),
            "   12 s    500 users     450 requests/s  errors 2  purchased 100, no answer 2"
        );
    }
}
