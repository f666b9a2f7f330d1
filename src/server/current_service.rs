//! Provides the service of the current configuration. It is looked up for each request, so that open
//! connections use a reloaded configuration too.

use std::sync::Arc;

use super::service::Service;
use crate::app::App;
use parking_lot::RwLock;

/// Builds the service of a configuration; `None` if that configuration has none for this listener.
type Build = fn(App) -> Option<Service>;

/// The current service of one listener.
pub(super) struct CurrentService {
    app: App,
    build: Build,
    /// The generation of the application that the service was built for, and the service.
    made: RwLock<(u64, Arc<Service>)>,
}

impl CurrentService {
    /// Returns `None` if the listener has nothing to serve.
    pub(super) fn new(app: &App, build: Build) -> Option<Arc<Self>> {
        let current = app.current();
        let made = RwLock::new((current.generation(), Arc::new(build(current)?)));
        Some(Arc::new(Self { app: app.clone(), build, made }))
    }

    /// Returns the application of the newest configuration.
    pub(super) fn app(&self) -> App {
        self.app.current()
    }

    /// Returns the service of the newest configuration. The first request after a reload builds it.
    pub(super) fn service(&self) -> Arc<Service> {
        let current = self.app.current();
        {
            let made = self.made.read();
            if made.0 == current.generation() {
                return Arc::clone(&made.1);
            }
        }
        self.renewed(current)
    }

    #[cold]
    fn renewed(&self, current: App) -> Arc<Service> {
        let generation = current.generation();
        let service = (self.build)(current);
        let mut made = self.made.write();
        match service {
            Some(service) if made.0 < generation => *made = (generation, Arc::new(service)),
            _ => {}
        }
        Arc::clone(&made.1)
    }
}
