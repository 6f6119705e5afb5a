//! A coordinator: its controllers, and what they share.
//!
//! Each controller has its own loops and state, so that none waits for another: a barrier that waits for a dead replica
//! delays no snapshot. The observer sends its observations to the reconciler and the rebalancer.

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use rediscluster::Cluster;
use service::presence;
use stock::ids::SaleId;
use stock::presence::{Presence, ProcessInfo, ProcessKind};
use tokio::sync::watch;

use crate::context::Context;
use crate::lease_holder::Leadership;
use crate::metrics;
use crate::observation::Observations;
use crate::observer::Observer;
use crate::operations::SaleOperations;
use crate::reconciler::Reconciler;
use crate::replication::{self, Replication};
use crate::rounds::Stop;
use crate::timing::Timing;
use crate::{leading, libraries, rebalancer, record_follower, settlement};

/// The control plane of all sales of a cluster.
pub struct Coordinator {
    /// Operations on request. They need no running loops.
    pub sales: SaleOperations,
    pub(crate) context: Arc<Context>,
    observer: Observer,
    reconciler: Reconciler,
    replications: watch::Sender<Vec<Replication>>,
}

impl Coordinator {
    /// A coordinator that reads through `reads` (see [`crate::context::read_options`]) and writes through `writes`.
    /// `name` must be unique among all processes.
    pub fn new(name: String, reads: Cluster, writes: Cluster, timing: Timing) -> Self {
        let context = Arc::new(Context::new(name, reads, writes, timing));
        Self {
            sales: SaleOperations::new(context.clone()),
            observer: Observer::new(context.clone()),
            reconciler: Reconciler::new(context.clone()),
            replications: watch::Sender::default(),
            context,
        }
    }

    /// Runs all loops until `stop` completes and the current rounds are finished. All coordinators follow the records
    /// and the cluster's map. The leader also observes the shards, publishes snapshots, repairs what is not as recorded,
    /// and rebalances.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send + 'static) {
        let (context, stop): (_, Stop) = (&*self.context, stop.boxed().shared());
        let name = context.leadership.name().to_owned();
        let process = ProcessInfo::of_this_release(name, ProcessKind::Coordinator);
        tokio::join!(
            leading::run(context, stop.clone()),
            presence::announce(
                &context.reads,
                |uptime| Presence::report(&process, uptime),
                drop,
                stop.clone()
            ),
            record_follower::run(context, stop.clone()),
            self.observer.run(stop.clone()),
            self.reconciler.run(self.observer.subscribe(), stop.clone()),
            rebalancer::run(context, self.observer.subscribe(), stop.clone()),
            settlement::run(context, self.observer.subscribe(), stop.clone()),
            context.run(stop.clone()),
            libraries::run(context, stop.clone()),
            replication::run(context, &self.replications, stop.clone()),
        );
    }

    /// The role of this coordinator among the others.
    pub fn leadership(&self) -> &Leadership {
        &self.context.leadership
    }

    /// The latest observation of each sale. Empty before the first round, and on followers.
    pub fn observations(&self) -> Observations {
        self.observer.latest()
    }

    /// The replicas of each primary by the latest check. Empty before the first one, and on followers.
    pub fn replications(&self) -> watch::Ref<'_, Vec<Replication>> {
        self.replications.borrow()
    }

    /// Returns true if the metrics show this sale: until it is at rest, and as long as its latest audit by this coordinator
    /// has found violations.
    pub fn shows_sale(&self, sale: &str) -> bool {
        let (Ok(id), known) = (sale.parse::<SaleId>(), self.context.records.known()) else { return true };
        let Some(desired) = known.get(&id) else { return true };
        !self.context.records.is_at_rest(&desired.sale)
            || self
                .sales
                .latest_audits()
                .iter()
                .any(|(audited, violations)| *audited == id && *violations > 0)
    }

    /// Sets all gauges from the latest observations.
    pub fn update_gauges(&self) {
        metrics::show_leading(self.context.leadership.leads());
        self.replications().iter().for_each(metrics::show_replication);
        let topology = self.context.reads.topology();
        for (id, observation) in self.observations().iter() {
            let stalled_since = self.reconciler.stalled_since(&observation.desired.sale);
            metrics::show_sale(id, observation, stalled_since, &topology);
        }
        for (id, violations) in self.sales.latest_audits() {
            metrics::show_audit(&id, violations);
        }
    }
}
