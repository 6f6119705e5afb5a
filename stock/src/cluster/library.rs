//! Loads the function library where it is missing, and where this user may not, leaves it to those who may.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use redis::Value;

use super::{Cluster, ClusterError};
use crate::calls::CallError;
use crate::connection::Connection;
use crate::functions::LIBRARY;
use crate::topology::Address;

impl Cluster {
    /// Loads the library on every primary that lacks it.
    pub async fn load_library(&self) -> Result<(), ClusterError> {
        let topology = self.topology();
        let loads = topology.primaries().iter().map(|primary| async {
            let address = &primary.address;
            self.load_library_on(address).await.map_err(|error| ClusterError::Library(address.clone(), error))
        });
        join_all(loads).await.into_iter().collect()
    }

    /// Loads the library on one primary, where it is missing. A user that may not is told so once, and from then on waits
    /// for somebody else to do it: asking again would only fill the server's log of what was forbidden.
    pub async fn load_library_on(&self, address: &Address) -> Result<(), CallError> {
        if self.leaves_loading.load(Ordering::Relaxed) {
            return Ok(());
        }
        match load(self.connection(address).await?).await {
            Ok(LoadOutcome::Now) => {
                tracing::info!(redis.address = %address, library.name = LIBRARY.name, "function library loaded");
                Ok(())
            }
            Ok(LoadOutcome::Before) => Ok(()),
            Err(error) if error.is_forbidden() => {
                if !self.leaves_loading.swap(true, Ordering::Relaxed) {
                    let library = &LIBRARY.name;
                    tracing::info!(
                        library.name = library,
                        "this user may not load the function library: left to a coordinator"
                    );
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

enum LoadOutcome {
    Now,
    Before,
}

/// Looks first: the library's name holds a digest of its code, so one that is there is this one.
async fn load(mut connection: Connection) -> Result<LoadOutcome, CallError> {
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(&LIBRARY.name);
    if !connection.query::<Vec<Value>>(&list).await?.is_empty() {
        return Ok(LoadOutcome::Before);
    }
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg(&LIBRARY.code);
    match connection.query::<String>(&load).await {
        Ok(_) => Ok(LoadOutcome::Now),
        Err(CallError::Refused(why)) if why.contains("already exists") => Ok(LoadOutcome::Before),
        Err(error) => Err(error),
    }
}
