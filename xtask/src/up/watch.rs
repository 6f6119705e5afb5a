//! Console output while a sale runs.

use std::{collections::HashSet, time::Duration};

use testkit::Stack;
use tokio::time::{Interval, interval};

use super::sale_line::SaleLine;
use crate::interruption::Interruption;

/// Interval between two status requests: smooth for the eye, and negligible load.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// Shows the progress of the sale, and each process that dies, until the program is interrupted.
pub(super) async fn watch_until_interrupted(stack: &Stack, interruption: &mut Interruption) {
    let mut watch = Watch::default();
    let mut ticks = interval(STATUS_INTERVAL);
    loop {
        tokio::select! {
            () = interruption.received() => break,
            // A status request that hangs must not delay Ctrl-C, so the whole update is raced against it.
            () = watch.update_at_next_tick(&mut ticks, stack) => {}
        }
    }
    watch.line.end();
}

#[derive(Default)]
struct Watch {
    line: SaleLine,
    reported: HashSet<u32>,
}

impl Watch {
    async fn update_at_next_tick(&mut self, ticks: &mut Interval, stack: &Stack) {
        ticks.tick().await;
        self.report_deaths(stack);
        match stack.status().await {
            Ok(status) => self.line.show(&status),
            Err(error) => self.line.show_problem(&format!("the sale does not answer: {error:#}")),
        }
    }

    fn report_deaths(&mut self, stack: &Stack) {
        let dead = stack.processes().into_iter().filter(|process| !process.is_running());
        for process in dead.filter(|process| self.reported.insert(process.pid())) {
            let status = process.exit_status().expect("it was seen dead just now");
            self.line.interrupt(&format!("{} died ({status}){}", process.name(), process.log_tail()));
        }
    }
}
