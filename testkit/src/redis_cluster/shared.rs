//! A cluster that the tests of one program share.

use std::{env, path::PathBuf};

use anyhow::Result;
use tokio::sync::OnceCell;

use super::{ClusterOptions, RedisCluster};

impl RedisCluster {
    /// Returns the cluster that all tests of a program share; the first call starts it. It ends with the program. The
    /// next run of the program empties its folder.
    ///
    /// # Errors
    /// Fails when the cluster does not start.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<RedisCluster> = OnceCell::const_new();
        let start = async || {
            let folder = Some(folder_of_this_program()?);
            Self::start(ClusterOptions { folder, ..ClusterOptions::default() }).await
        };
        SHARED.get_or_try_init(start).await
    }
}

/// Returns a folder named after the path of the program, so that each checkout, crate and profile has its own.
fn folder_of_this_program() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let name = program.to_string_lossy().replace('/', "-");
    Ok(env::temp_dir().join(format!("flashsale{name}")))
}
