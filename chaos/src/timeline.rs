//! Computes outages and latencies from a journal.

use std::{collections::HashMap, time::Duration};

use buyers::{
    AnswerKind,
    journal::{Answered, Invoked, JournalEntry, Micros},
};

use crate::{load::NGINX, testbed::SALE};

/// Requests and answers at the main sale.
pub(crate) struct Timeline {
    exchanges: Vec<Exchange>,
}

/// A time span, without its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: Micros,
    pub(crate) to: Micros,
}

/// Statistics of a set of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RequestStats {
    pub(crate) requests: usize,
    /// Requests with an unknown outcome.
    pub(crate) unknown: usize,
    /// Reported purchases.
    pub(crate) purchases: usize,
    /// 99th percentile of the latency of definite answers.
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
    fn contains(self, at: Micros) -> bool {
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

    /// Returns the longest time within the span without a definite answer to buyers of one of these home shards.
    pub(crate) fn outage(&self, shards: &[u16], span: Span) -> Option<Duration> {
        shards.iter().map(|&shard| self.longest_gap(shard, span)).max()
    }

    fn longest_gap(&self, shard: u16, span: Span) -> Duration {
        let definite =
            self.exchanges.iter().filter(|exchange| exchange.shard == shard && !exchange.is_unknown);
        let mut times: Vec<Micros> =
            definite.map(|exchange| exchange.answered).filter(|&at| span.contains(at)).collect();
        times.extend([span.from, span.to]);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| Span { from: pair[0], to: pair[1] }.length());
        gaps.max().unwrap_or_default()
    }

    /// Returns the statistics of all requests sent in the span.
    pub(crate) fn within(&self, span: Span) -> RequestStats {
        request_stats(self.exchanges.iter().filter(|exchange| span.contains(exchange.sent)))
    }

    /// Returns the statistics of requests sent in the span through nginx by buyers of other home shards. Requests sent
    /// directly to a node are left out, because they fail with that node.
    pub(crate) fn other_shards(&self, shards: &[u16], span: Span) -> RequestStats {
        let is_other = |exchange: &&Exchange| exchange.is_through_nginx && !shards.contains(&exchange.shard);
        request_stats(self.exchanges.iter().filter(|exchange| span.contains(exchange.sent)).filter(is_other))
    }

    /// Returns the statistics of requests sent before `end` and outside all of these spans.
    pub(crate) fn outside(&self, spans: &[Span], end: Micros) -> RequestStats {
        let is_quiet = |exchange: &&Exchange| {
            exchange.sent < end && !spans.iter().any(|span| span.contains(exchange.sent))
        };
        request_stats(self.exchanges.iter().filter(is_quiet))
    }
}

impl Exchange {
    fn of(invoked: &Invoked, answered: &Answered) -> Self {
        let kind = answered.kind(&invoked.ask);
        Self {
            shard: invoked.shard,
            sent: invoked.at,
            answered: answered.at,
            is_unknown: !kind.is_definite(),
            is_purchase: kind == AnswerKind::Purchased,
            is_through_nginx: invoked.via == NGINX,
        }
    }
}

fn request_stats<'a>(exchanges: impl Iterator<Item = &'a Exchange>) -> RequestStats {
    let mut stats = RequestStats::default();
    let mut latencies = Vec::new();
    for exchange in exchanges {
        stats.requests += 1;
        stats.unknown += usize::from(exchange.is_unknown);
        stats.purchases += usize::from(exchange.is_purchase);
        if !exchange.is_unknown {
            latencies.push(exchange.answered.saturating_sub(exchange.sent));
        }
    }
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
    RequestStats { p99: Duration::from_micros(p99), ..stats }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{ApiFamily, BuyerRequest};

    /// A lookup by a buyer of this home shard. Times are in milliseconds.
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
    fn outage_is_longest_time_without_definite_answer() {
        let span = Span { from: 5_000, to: 1_000_000 };
        assert_eq!(timeline().outage(&[0], span), Some(Duration::from_millis(890)));
        assert_eq!(timeline().outage(&[1], span), Some(Duration::from_millis(765)));
        assert_eq!(timeline().outage(&[0, 1], span), Some(Duration::from_millis(890)));
        assert_eq!(timeline().outage(&[], span), None);
    }

    #[test]
    fn other_shards_counts_only_other_home_shards() {
        let span = Span { from: 0, to: 600_000 };
        let others = timeline().other_shards(&[0], span);
        assert_eq!((others.requests, others.unknown, others.p99), (1, 0, Duration::from_millis(10)));
        assert_eq!(timeline().within(span).unknown, 1);
        assert_eq!(timeline().outside(&[span], 1_000_000).requests, 1);
    }
}
