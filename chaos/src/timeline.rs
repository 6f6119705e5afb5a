//! Computes outages and latencies from a journal.

use std::time::Duration;

use buyers::{
    AnswerKind,
    journal::{Answered, Invoked, JournalEntry, Micros, exchanges},
};

use crate::{load::NGINX, testbed::SALE};

/// Requests and answers at the main sale.
pub(crate) struct Timeline<'a>(Vec<Answer<'a>>);

/// A request and its answer.
type Answer<'a> = (&'a Invoked, &'a Answered);

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

impl Span {
    fn contains(self, at: Micros) -> bool {
        (self.from..self.to).contains(&at)
    }

    fn length(self) -> Duration {
        Duration::from_micros(self.to.saturating_sub(self.from))
    }
}

impl<'a> Timeline<'a> {
    pub(crate) fn of(records: &'a [JournalEntry]) -> Self {
        let of_sale = exchanges(records).filter(|exchange| exchange.invoked.sale == SALE);
        Self(of_sale.filter_map(|exchange| Some((exchange.invoked, exchange.answered?))).collect())
    }

    /// Returns the longest time within the span without a definite answer to buyers of one of these home shards.
    pub(crate) fn outage(&self, shards: &[u16], span: Span) -> Option<Duration> {
        shards.iter().map(|&shard| self.longest_gap(shard, span)).max()
    }

    fn longest_gap(&self, shard: u16, span: Span) -> Duration {
        let definite =
            self.0.iter().filter(|(asked, answered)| asked.shard == shard && answered.kind.is_definite());
        let mut times: Vec<Micros> =
            definite.map(|(_, answered)| answered.at).filter(|&at| span.contains(at)).collect();
        times.extend([span.from, span.to]);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| Span { from: pair[0], to: pair[1] }.length());
        gaps.max().unwrap_or_default()
    }

    /// Leaves out the requests sent within these spans.
    pub(crate) fn without(mut self, spans: &[Span]) -> Self {
        self.0.retain(|(asked, _)| !spans.iter().any(|span| span.contains(asked.at)));
        self
    }

    /// Returns the statistics of all requests sent in the span.
    pub(crate) fn within(&self, span: Span) -> RequestStats {
        self.stats(|asked| span.contains(asked.at))
    }

    /// Returns the statistics of requests sent in the span through nginx by buyers of other home shards. Requests sent
    /// directly to a node are left out, because they fail with that node.
    pub(crate) fn other_shards(&self, shards: &[u16], span: Span) -> RequestStats {
        self.stats(|asked| span.contains(asked.at) && asked.via == NGINX && !shards.contains(&asked.shard))
    }

    /// Returns the statistics of requests sent before `end` and outside all of these spans.
    pub(crate) fn outside(&self, spans: &[Span], end: Micros) -> RequestStats {
        self.stats(|asked| asked.at < end && !spans.iter().any(|span| span.contains(asked.at)))
    }

    fn stats(&self, is_included: impl Fn(&Invoked) -> bool) -> RequestStats {
        let mut stats = RequestStats::default();
        let mut latencies = Vec::new();
        for (asked, answered) in self.0.iter().filter(|(asked, _)| is_included(asked)) {
            stats.requests += 1;
            stats.unknown += usize::from(!answered.kind.is_definite());
            stats.purchases += usize::from(answered.kind == AnswerKind::Purchased);
            if answered.kind.is_definite() {
                latencies.push(answered.at.saturating_sub(asked.at));
            }
        }
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
        RequestStats { p99: Duration::from_micros(p99), ..stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buyers::{ApiFamily, journal::BuyerRequest};

    /// A lookup by a buyer of this home shard. Times are in milliseconds.
    fn exchange(request: u64, shard: u16, sent: Micros, at: Micros, kind: AnswerKind) -> [JournalEntry; 2] {
        let (user, via, sale) = (format!("user-{request}"), NGINX.into(), SALE.into());
        let (api, ask) = (ApiFamily::BySale, BuyerRequest::Lookup);
        let invoked = Invoked { request, at: sent * 1_000, sale, api, user, shard, via, ask };
        let answered = Answered { request, at: at * 1_000, kind, ..Answered::default() };
        [JournalEntry::Invoked(invoked), JournalEntry::Answered(answered)]
    }

    fn entries() -> Vec<JournalEntry> {
        let exchanges = [
            exchange(0, 0, 0, 10, AnswerKind::Found),
            exchange(1, 0, 20, 520, AnswerKind::Unknown),
            exchange(2, 0, 540, 900, AnswerKind::Found),
            exchange(3, 1, 30, 40, AnswerKind::Found),
            exchange(4, 1, 800, 805, AnswerKind::Found),
        ];
        exchanges.as_flattened().to_vec()
    }

    #[test]
    fn outage_is_longest_time_without_definite_answer() {
        let entries = entries();
        let timeline = Timeline::of(&entries);
        let span = Span { from: 5_000, to: 1_000_000 };
        assert_eq!(timeline.outage(&[0], span), Some(Duration::from_millis(890)));
        assert_eq!(timeline.outage(&[1], span), Some(Duration::from_millis(765)));
        assert_eq!(timeline.outage(&[0, 1], span), Some(Duration::from_millis(890)));
        assert_eq!(timeline.outage(&[], span), None);
    }

    #[test]
    fn other_shards_counts_only_other_home_shards() {
        let entries = entries();
        let timeline = Timeline::of(&entries);
        let span = Span { from: 0, to: 600_000 };
        let others = timeline.other_shards(&[0], span);
        assert_eq!((others.requests, others.unknown, others.p99), (1, 0, Duration::from_millis(10)));
        assert_eq!(timeline.within(span).unknown, 1);
        assert_eq!(timeline.outside(&[span], 1_000_000).requests, 1);
    }
}
