//! The service of the present configuration: looked up at each request, so that a connection that stays
//! open is served by the newest one.

use std::sync::Arc;

use super::Service;
use crate::app::App;
use parking_lot::RwLock;

/// Makes the service of a configuration; `None`: there is none.
type Build = fn(App) -> Option<Service>;

/// What one listener serves.
pub(super) struct Present {
    app: App,
    build: Build,
    /// Made for this generation.
    made: RwLock<(u64, Arc<Service>)>,
}

impl Present {
    /// `None` when the listener has nothing to serve.
    pub(super) fn new(app: &App, build: Build) -> Option<Arc<Self>> {
        let present = app.current();
        let made = RwLock::new((present.generation(), Arc::new(build(present)?)));
        Some(Arc::new(Self { app: app.clone(), build, made }))
    }

    /// The application of the newest configuration.
    pub(super) fn app(&self) -> App {
        self.app.current()
    }

    /// Its service. Made by whoever first asks for it.
    pub(super) fn service(&self) -> Arc<Service> {
        let present = self.app.current();
        {
            let made = self.made.read();
            if made.0 == present.generation() {
                return Arc::clone(&made.1);
            }
        }
        self.renewed(present)
    }

    #[cold]
    fn renewed(&self, present: App) -> Arc<Service> {
        let generation = present.generation();
        let service = (self.build)(present);
        let mut made = self.made.write();
        match service {
            Some(service) if made.0 < generation => *made = (generation, Arc::new(service)),
            _ => {}
        }
        Arc::clone(&made.1)
    }
}
