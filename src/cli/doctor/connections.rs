//! `doctor --connections`: whether the services of the configuration know our client.

use futures_util::future::join_all;

use crate::app::App;
use crate::cli::trial_app::TrialApp;
use crate::cli::{ConfigFile, check, config, fail, runtime};
use crate::config::{Config, paths};
use crate::upstream::probe::{Finding, Severity};

/// Exit code if anything failed.
const FAILED: u8 = 2;

/// Asks the token endpoint of each `[[connection]]`, prints what was found, and returns the exit code.
pub(super) fn run(file: &ConfigFile, as_json: bool) -> u8 {
    let config = match config::load(file) {
        Ok(loaded) => loaded.config,
        Err(problems) => {
            let _ = fail(&problems);
            return FAILED;
        }
    };
    let runtime = runtime().map_err(|cause| cause.to_string());
    let findings = match runtime.and_then(|runtime| runtime.block_on(ask_all(config))) {
        Ok(findings) => findings,
        Err(reason) => {
            let _ = fail(&reason);
            return FAILED;
        }
    };
    match check::print(&findings, as_json) {
        Ok(()) => check::exit_code(&findings),
        Err(cause) => {
            let _ = fail(&cause);
            FAILED
        }
    }
}

async fn ask_all(config: Config) -> Result<Vec<Finding>, String> {
    if config.connections.is_empty() {
        return Ok(vec![Finding {
            probe: "connection",
            severity: Severity::Ok,
            found: "the configuration has no [[connection]]".to_owned(),
            hint: None,
        }]);
    }
    let trial = TrialApp::new(config).await?;
    let services = trial.app.config().connections.iter();
    let findings = join_all(services.map(|service| ask(&trial.app, &service.name))).await;
    trial.close().await;
    Ok(findings)
}

async fn ask(app: &App, name: &str) -> Finding {
    let callback = app.config().public_url.join(&paths::connect_callback(name));
    app.connections().probe(name, &callback).await
}
