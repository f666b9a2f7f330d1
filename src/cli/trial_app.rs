//! An application for a short command that asks others, such as `portcullis check`.

use std::path::PathBuf;

use crate::app::App;
use crate::clock::Clock;
use crate::config::Config;
use crate::oauth::secret::random_text;
use crate::storage::Storage;

/// An application with a temporary database, because the real one may be in use and must not change.
pub(super) struct TrialApp {
    pub(super) app: App,
    folder: PathBuf,
}

impl TrialApp {
    pub(super) async fn new(config: Config) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(random_text());
        let database = format!("sqlite://{}", folder.join("check.db").display());
        let storage = Storage::open(&database, None).await.map_err(|error| error.to_string())?;
        let app = App::new(config, Clock::System, storage).await;
        Ok(Self { app: app.map_err(|error| error.to_string())?, folder })
    }

    /// Removes the database.
    pub(super) async fn close(self) {
        self.app.storage().close().await;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
