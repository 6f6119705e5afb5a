//! What requests met, and when: read off a journal.

use std::{collections::HashMap, time::Duration};

use crate::{
    journal::{Answered, Invoked, JournalEntry, Micros, Reported},
    load::NGINX,
    testbed::SALE,
};

/// Requests and answers of a journal, at the sale that faults meet: their shards are its own.
pub(crate) struct Timeline {
    exchanges: Vec<Exchange>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: Micros,
    pub(crate) to: Micros,
}

/// How requests fared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RequestStats {
    pub(crate) requests: usize,
    /// Answers that left things unknown.
    pub(crate) unknown: usize,
    /// Purchases told.
    pub(crate) purchases: usize,
    /// Of requests with a definite answer.
    pub(crate) p99: Duration,
}

#[derive(Clone, Copy)]
struct Exchange {
    shard: u16,
    sent: Micros,
    answered: Micros,
    is_unknown: bool,
    is_purchase: bool,
    is_through_nginx: bool,
}

impl Span {
    fn holds(self, at: Micros) -> bool {
        (self.from..self.to).contains(&at)
    }

    fn length(self) -> Duration {
        Duration::from_micros(self.to.saturating_sub(self.from))
    }
}

impl Timeline {
    pub(crate) fn of(records: &[JournalEntry]) -> Self {
        let mut open: HashMap<u64, &Invoked> = HashMap::new();
        let mut exchanges = Vec::new();
        for record in records {
            match record {
                JournalEntry::Invoked(invoked) if invoked.sale == SALE => {
                    open.insert(invoked.request, invoked);
                }
                JournalEntry::Invoked(_) | JournalEntry::Operated(_) | JournalEntry::SaleOpened(_) => {}
                JournalEntry::Answered(answered) => {
                    exchanges.extend(
                        open.remove(&answered.request).map(|invoked| Exchange::of(invoked, answered)),
                    );
                }
            }
        }
        Self { exchanges }
    }

    /// The longest time within the span in which buyers at home in one of these shards heard nothing definite.
    pub(crate) fn outage(&self, shards: &[u16], span: Span) -> Option<Duration> {
        shards.iter().map(|&shard| self.silence(shard, span)).max()
    }

    fn silence(&self, shard: u16, span: Span) -> Duration {
        let definite = self.exchanges.iter().filter(|seen| seen.shard == shard && !seen.is_unknown);
        let mut times: Vec<Micros> =
            definite.map(|seen| seen.answered).filter(|&at| span.holds(at)).collect();
        times.extend([span.from, span.to]);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| Span { from: pair[0], to: pair[1] }.length());
        gaps.max().unwrap_or_default()
    }

    /// How all requests fared that were sent in the span.
    pub(crate) fn within(&self, span: Span) -> RequestStats {
        fared(self.exchanges.iter().filter(|seen| span.holds(seen.sent)))
    }

    /// How requests fared that were sent in the span by those at home in other shards, through nginx: whoever goes to
    /// one node directly has chosen what to depend on.
    pub(crate) fn of_others(&self, shards: &[u16], span: Span) -> RequestStats {
        let is_other = |seen: &&Exchange| seen.is_through_nginx && !shards.contains(&seen.shard);
        fared(self.exchanges.iter().filter(|seen| span.holds(seen.sent)).filter(is_other))
    }

    /// How requests fared until `end` that were sent outside all of these spans.
    pub(crate) fn outside(&self, spans: &[Span], end: Micros) -> RequestStats {
        let is_quiet = |seen: &&Exchange| seen.sent < end && !spans.iter().any(|span| span.holds(seen.sent));
        fared(self.exchanges.iter().filter(is_quiet))
    }
}

impl Exchange {
    fn of(invoked: &Invoked, answered: &Answered) -> Self {
        let told = answered.told(&invoked.ask);
        Self {
            shard: invoked.shard,
            sent: invoked.at,
            answered: answered.at,
            is_unknown: told == Reported::Unknown,
            is_purchase: matches!(told, Reported::Purchased(_)),
            is_through_nginx: invoked.via == NGINX,
        }
    }
}

fn fared<'a>(exchanges: impl Iterator<Item = &'a Exchange>) -> RequestStats {
    let mut fared = RequestStats::default();
    let mut latencies = Vec::new();
    for seen in exchanges {
        fared.requests += 1;
        fared.unknown += usize::from(seen.is_unknown);
        fared.purchases += usize::from(seen.is_purchase);
        if !seen.is_unknown {
            latencies.push(seen.answered.saturating_sub(seen.sent));
        }
    }
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
    RequestStats { p99: Duration::from_micros(p99), ..fared }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{ApiFamily, BuyerRequest};

    /// A lookup of somebody at home in this shard, in milliseconds.
    fn exchange(request: u64, shard: u16, sent: Micros, answered: Micros, status: u16) -> [JournalEntry; 2] {
        let (user, via, sale) = (format!("user-{request}"), NGINX.into(), SALE.into());
        let (at, api, ask) = (sent * 1_000, ApiFamily::BySale, BuyerRequest::Lookup);
        let invoked = Invoked { request, at, sale, api, user, shard, via, ask };
        let answered =
            Answered { request, at: answered * 1_000, status: Some(status), ..Answered::default() };
        [JournalEntry::Invoked(invoked), JournalEntry::Answered(answered)]
    }

    fn timeline() -> Timeline {
        let exchanges = [
            exchange(0, 0, 0, 10, 200),
            exchange(1, 0, 20, 520, 503),
            exchange(2, 0, 540, 900, 200),
            exchange(3, 1, 30, 40, 200),
            exchange(4, 1, 800, 805, 200),
        ];
        Timeline::of(exchanges.as_flattened())
    }

    #[test]
    fn an_outage_is_the_longest_time_without_a_definite_answer() {
        let span = Span { from: 5_000, to: 1_000_000 };
        assert_eq!(timeline().outage(&[0], span), Some(Duration::from_millis(890)));
        assert_eq!(timeline().outage(&[1], span), Some(Duration::from_millis(765)));
        assert_eq!(timeline().outage(&[0, 1], span), Some(Duration::from_millis(890)));
        assert_eq!(timeline().outage(&[], span), None);
    }

    #[test]
    fn others_are_those_at_home_elsewhere() {
        let span = Span { from: 0, to: 600_000 };
        let others = timeline().of_others(&[0], span);
        assert_eq!((others.requests, others.unknown, others.p99), (1, 0, Duration::from_millis(10)));
        assert_eq!(timeline().within(span).unknown, 1);
        assert_eq!(timeline().outside(&[span], 1_000_000).requests, 1);
    }
}
