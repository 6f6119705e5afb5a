//! The progress of the sale on one line. It is rewritten in place on a terminal; elsewhere each change is printed on
//! a new line.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use testkit::stack::SaleStatus;

/// Width of the bar in characters. Leaves room for the text on a terminal of 80 columns.
const BAR_WIDTH: usize = 30;

/// A line that wraps cannot be rewritten in place.
const LINE_WIDTH_MAX: usize = 79;

/// Time over which the rate is measured. A shorter time makes it flicker, a longer one hides how a rush ends.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Returns to the start of the line and clears it (ECMA-48 `EL`).
const REWRITE: &str = "\r\x1b[2K";

/// The displayed line, and the samples from which the rate is computed.
pub(super) struct SaleLine {
    in_place: bool,
    shown: String,
    samples: VecDeque<(Instant, u64)>,
}

impl Default for SaleLine {
    fn default() -> Self {
        Self { in_place: io::stdout().is_terminal(), shown: String::new(), samples: VecDeque::new() }
    }
}

impl SaleLine {
    /// Shows the progress of the sale.
    pub(super) fn show(&mut self, status: &SaleStatus) {
        let rate = self.rate(status.sold(), Instant::now());
        let rate = if rate > 0 && self.in_place { format!("  {rate}/s") } else { String::new() };
        let (sold, total) = (status.sold(), status.total_stock);
        self.print(format!("{}  {sold}/{total} sold{rate}  {}", bar(sold, total), status.status));
    }

    /// Shows a problem in place of the progress.
    pub(super) fn show_problem(&mut self, problem: &str) {
        self.print(problem.to_owned());
    }

    /// Prints a message above the line.
    pub(super) fn interrupt(&mut self, message: &str) {
        if self.in_place {
            say_part!("{REWRITE}");
        }
        say!("{message}");
        self.shown.clear();
    }

    /// Leaves the line as it is and starts the next one.
    pub(super) fn end(&mut self) {
        if self.in_place {
            say!();
        }
    }

    fn print(&mut self, line: String) {
        if line == self.shown {
            return;
        }
        match self.in_place {
            true => say_part!("{REWRITE}{}", line.chars().take(LINE_WIDTH_MAX).collect::<String>()),
            false => say!("{line}"),
        }
        // A closed terminal is no reason to stop the sale.
        io::stdout().flush().ok();
        self.shown = line;
    }

    /// Returns the units sold per second over the last second.
    fn rate(&mut self, sold: u64, now: Instant) -> u64 {
        self.samples.push_back((now, sold));
        while self.samples.get(1).is_some_and(|&(second, _)| now - second >= RATE_WINDOW) {
            self.samples.pop_front();
        }
        let (since, sold_then) = self.samples[0];
        let seconds = (now - since).max(RATE_WINDOW).as_secs_f64();
        (sold.saturating_sub(sold_then) as f64 / seconds) as u64
    }
}

fn bar(sold: u64, total: u64) -> String {
    let full = (BAR_WIDTH as u64 * sold).checked_div(total).unwrap_or(0) as usize;
    format!("[{}{}]", "#".repeat(full.min(BAR_WIDTH)), "-".repeat(BAR_WIDTH.saturating_sub(full)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn bar_is_full_only_when_sold_out() {
        assert_eq!(bar(0, 1000), format!("[{}]", "-".repeat(30)));
        assert_eq!(bar(999, 1000), format!("[{}-]", "#".repeat(29)));
        assert_eq!(bar(1000, 1000), format!("[{}]", "#".repeat(30)));
        assert_eq!(bar(0, 0), format!("[{}]", "-".repeat(30)));
    }

    #[test]
    fn rate_covers_the_last_second() {
        let mut line = SaleLine::default();
        let opening = Instant::now();
        let mut rate = |sold, after_ms| line.rate(sold, opening + Duration::from_millis(after_ms));

        assert_eq!(rate(0, 0), 0);
        assert_eq!(rate(100, 500), 100);
        assert_eq!(rate(300, 1_000), 300);
        assert_eq!(rate(300, 1_500), 200);
        assert_eq!(rate(300, 2_500), 0);
    }
}
