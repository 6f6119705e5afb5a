//! The function library of the caller, loaded where it is missing. A process whose Redis user lacks the permission leaves this to
//! others.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use redis::Value;

use super::{Cluster, ClusterError};
use crate::call::CallError;
use crate::connection::Connection;
use crate::topology::Address;

/// A library of functions as Redis loads it.
pub struct Library {
    /// Name of the library. It must contain a digest of the code: a library of this name on a server is this one.
    pub name: String,
    /// Code for `FUNCTION LOAD`.
    pub code: String,
}

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

    /// Loads the library on one primary unless it is already there. After the first refusal for lack of permission,
    /// later calls do nothing and wait for another process to load it: further tries would only fill the server's ACL
    /// log.
    pub async fn load_library_on(&self, address: &Address) -> Result<(), CallError> {
        if self.may_not_load.load(Ordering::Relaxed) {
            return Ok(());
        }
        match load(self.library, self.connection(address).await?).await {
            Ok(LoadOutcome::Loaded) => {
                tracing::info!(redis.address = %address, library.name = self.library.name, "function library loaded");
                Ok(())
            }
            Ok(LoadOutcome::AlreadyPresent) => Ok(()),
            Err(error) if error.is_forbidden() => {
                if !self.may_not_load.swap(true, Ordering::Relaxed) {
                    tracing::info!(
                        library.name = self.library.name,
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
    Loaded,
    AlreadyPresent,
}

/// Loads the library unless one of its name exists.
async fn load(library: &Library, mut connection: Connection) -> Result<LoadOutcome, CallError> {
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(&library.name);
    if !connection.query::<Vec<Value>>(&list).await?.is_empty() {
        return Ok(LoadOutcome::AlreadyPresent);
    }
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg(&library.code);
    match connection.query::<String>(&load).await {
        Ok(_) => Ok(LoadOutcome::Loaded),
        Err(CallError::Refused(why)) if why.contains("already exists") => Ok(LoadOutcome::AlreadyPresent),
        Err(error) => Err(error),
    }
}
