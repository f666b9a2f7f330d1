//! `/connections`: the services that people have connected, those that they have to connect again, and how to
//! remove them. `/grants` has the clients that people connected.

mod act;
mod list;
mod view;

pub(super) use self::act::act;
pub(super) use self::list::list;
pub(super) use self::view::{ServiceView, ServiceWords, service_title};
