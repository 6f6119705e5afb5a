//! Repairs what is not as recorded, and re-drives stalled channels, after each observation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::join_all;
use stock::channels::OpenChannels;
use stock::layout::Fingerprint;
use stock::sale::Sale;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apply::apply;
use crate::context::Context;
use crate::observation::{Observation, Observations};
use crate::plan::{PlanStep, plan};
use crate::rounds::{Stop, on_change};

/// Brings all sales to the recorded state.
pub(crate) struct Reconciler {
    context: Arc<Context>,
    /// The open channels of each sale. Empty on followers.
    channels: Mutex<HashMap<Fingerprint, OpenChannels>>,
}

impl Reconciler {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, channels: Mutex::default() }
    }

    /// Returns since when tokens have been waiting in the channel of this sale that stalled longest.
    pub(crate) fn stalled_since(&self, sale: &Sale) -> Option<Instant> {
        self.channels().get(sale.fingerprint())?.stalled_since()
    }

    pub(crate) async fn run(&self, observations: watch::Receiver<Observations>, stop: Stop) {
        on_change(observations, stop, async |observations| self.reconcile(&observations).await).await;
    }

    async fn reconcile(&self, observations: &Observations) {
        let Context { leadership, writes, records, .. } = &*self.context;
        if !leadership.leads() {
            self.channels().clear();
            return;
        }
        let plans = observations.values().map(|observation| (&observation.desired, self.plan(observation)));
        let work: Vec<_> = plans.filter(|(_, steps)| !steps.is_empty()).collect();
        join_all(work.iter().map(|(desired, steps)| apply(writes, records, desired, steps))).await;
    }

    fn plan(&self, Observation { desired, levels, .. }: &Observation) -> Vec<PlanStep> {
        let (now, mut sales) = (Instant::now(), self.channels());
        let channels = sales.entry(desired.sale.fingerprint().clone()).or_default();
        channels.observe(levels, now);
        let stalled = channels.stalled_for(self.context.timing.redrive_after, now);
        stalled.iter().for_each(|&channel| channels.restart_wait(channel, now));
        plan(desired, levels, &stalled)
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<Fingerprint, OpenChannels>> {
        self.channels.lock().expect("nothing panics while it holds the channels")
    }
}
