//! What a person sees while a sale runs.

use std::{collections::HashSet, time::Duration};

use testkit::Stack;
use tokio::time::{Interval, interval};

use super::sale_line::SaleLine;
use crate::interruption::Interruption;

/// How often the sale's progress is looked at: smooth for an eye, nothing beside the load.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows the sale's progress, and each process that dies, until somebody wants it to end.
pub(super) async fn watch_until_interrupted(stack: &Stack, interruption: &mut Interruption) {
    let mut watch = Watch::default();
    let mut looks = interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = interruption.comes() => break,
            // A look that hangs must not keep Ctrl-C waiting, so it is raced as a whole.
            () = watch.look_at_next(&mut looks, stack) => {}
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
    async fn look_at_next(&mut self, looks: &mut Interval, stack: &Stack) {
        looks.tick().await;
        self.report_deaths(stack);
        match stack.status().await {
            Ok(status) => self.line.show(&status),
            Err(error) => self.line.trouble(&format!("the sale does not answer: {error:#}")),
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
