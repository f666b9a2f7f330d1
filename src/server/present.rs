//! The service of the present configuration: looked up at each request, so that a connection that stays
//! open is served by the newest one.

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;

use crate::app::App;

/// Makes the service of a configuration; `None`: there is none.
type Build = fn(App) -> Option<Router>;

/// What one listener serves.
pub(super) struct Present {
    app: App,
    build: Build,
    /// Made for this generation.
    made: RwLock<(u64, Router)>,
}

impl Present {
    /// `None` when the listener has nothing to serve.
    pub(super) fn new(app: &App, build: Build) -> Option<Arc<Self>> {
        let present = app.present();
        let made = RwLock::new((present.generation(), build(present)?));
        Some(Arc::new(Self { app: app.clone(), build, made }))
    }

    /// The application of the newest configuration.
    pub(super) fn app(&self) -> App {
        self.app.present()
    }

    /// Its service. Made by whoever first asks for it.
    pub(super) fn service(&self) -> Router {
        let present = self.app.present();
        {
            let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
            if made.0 == present.generation() {
                return made.1.clone();
            }
        }
        self.renewed(present)
    }

    #[cold]
    fn renewed(&self, present: App) -> Router {
        let generation = present.generation();
        let router = (self.build)(present);
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        match router {
            Some(router) if made.0 < generation => *made = (generation, router),
            _ => {}
        }
        made.1.clone()
    }
}
