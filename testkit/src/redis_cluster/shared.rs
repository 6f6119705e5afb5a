//! The cluster that the tests of one program share.

use std::{env, path::PathBuf};

use anyhow::Result;
use tokio::sync::OnceCell;

use super::{ClusterOptions, RedisCluster};

impl RedisCluster {
    /// The same cluster for all tests of a program, started by the first that asks. It ends with the program; its
    /// folder is emptied by the program's next run.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<RedisCluster> = OnceCell::const_new();
        let start = async || {
            let folder = Some(folder_of_this_program()?);
            Self::start(ClusterOptions { folder, ..ClusterOptions::default() }).await
        };
        SHARED.get_or_try_init(start).await
    }
}

/// Named by where the program lies: checkouts, crates and profiles have each their own.
fn folder_of_this_program() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let name = program.to_string_lossy().replace('/', "-");
    Ok(env::temp_dir().join(format!("flashsale{name}")))
}
