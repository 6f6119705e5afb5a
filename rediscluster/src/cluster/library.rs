//! The function library of the caller, loaded where it is missing. A process whose Redis user lacks the permission leaves this to
//! others.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use futures::future::join_all;
use redis::{Value, from_redis_value_ref};

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

impl Cluster {
    /// Copies each library whose name starts with `prefix` to the primaries that lack it. Releases have libraries of
    /// their own, and during a rolling update processes of both run. Those that may not load their library depend on
    /// this when a primary joins or has lost its functions. A primary that does not answer is left out. Returns the names
    /// of all these libraries.
    pub async fn spread_libraries(&self, prefix: &str) -> Result<BTreeSet<String>, ClusterError> {
        let topology = self.topology();
        let addresses: Vec<&Address> = topology.primaries().iter().map(|primary| &primary.address).collect();
        let names = join_all(addresses.iter().map(|address| self.library_names(address, prefix))).await;
        let held: Vec<(&Address, BTreeSet<String>)> = addresses
            .into_iter()
            .zip(names)
            .filter_map(|(address, names)| Some((address, names.ok()?)))
            .collect();
        for (holder, names) in &held {
            for name in names {
                let lacking =
                    held.iter().filter(|(_, names)| !names.contains(name)).map(|(address, _)| *address);
                for address in lacking {
                    let copied = self.copy_library(name, holder, address).await;
                    copied.map_err(|error| ClusterError::Library(address.clone(), error))?;
                }
            }
        }
        Ok(held.into_iter().flat_map(|(_, names)| names).collect())
    }

    /// Deletes the library of this name from every primary that has it.
    pub async fn delete_library(&self, name: &str) -> Result<(), ClusterError> {
        let topology = self.topology();
        let deletions = topology.primaries().iter().map(|primary| async {
            let deleted = self.delete_library_on(&primary.address, name).await;
            deleted.map_err(|error| ClusterError::Library(primary.address.clone(), error))
        });
        join_all(deletions).await.into_iter().collect()
    }

    async fn delete_library_on(&self, address: &Address, name: &str) -> Result<(), CallError> {
        let mut delete = redis::cmd("FUNCTION");
        delete.arg("DELETE").arg(name);
        match self.connection(address).await?.query(&delete).await {
            Err(CallError::Refused(why)) if why.contains("Library not found") => Ok(()),
            deleted => deleted,
        }
    }

    async fn library_names(&self, address: &Address, prefix: &str) -> Result<BTreeSet<String>, CallError> {
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(format!("{prefix}*"));
        let libraries: Vec<Listed> = self.connection(address).await?.query(&list).await?;
        libraries.iter().map(|library| text_of(library, "library_name")).collect()
    }

    async fn copy_library(&self, name: &str, from: &Address, to: &Address) -> Result<(), CallError> {
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(name).arg("WITHCODE");
        let libraries: Vec<Listed> = self.connection(from).await?.query(&list).await?;
        let Some(library) = libraries.first() else { return Ok(()) };
        let code = text_of(library, "library_code")?;
        match load_code(&code, &mut self.connection(to).await?).await? {
            LoadOutcome::Loaded => {
                tracing::info!(redis.address = %to, library.name = name, "function library of another release copied");
            }
            LoadOutcome::AlreadyPresent => {}
        }
        Ok(())
    }
}

/// An entry of `FUNCTION LIST`.
type Listed = HashMap<String, Value>;

fn text_of(library: &Listed, field: &str) -> Result<String, CallError> {
    let text = library.get(field).and_then(|value| from_redis_value_ref(value).ok());
    text.ok_or_else(|| CallError::Malformed(format!("a library without {field}")))
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
    load_code(&library.code, &mut connection).await
}

async fn load_code(code: &str, connection: &mut Connection) -> Result<LoadOutcome, CallError> {
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg(code);
    match connection.query::<String>(&load).await {
        Ok(_) => Ok(LoadOutcome::Loaded),
        Err(CallError::Refused(why)) if why.contains("already exists") => Ok(LoadOutcome::AlreadyPresent),
        Err(error) => Err(error),
    }
}
