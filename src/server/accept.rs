//! The accept loop of a listener, with its limits of open connections.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::connection::Protocols;
use super::current_service::CurrentService;
use super::guard::AcceptMode;
use super::handshake::AlpnOffer;
use super::shutdown::Shutdown;
use crate::app::App;
use crate::rate_limits::ConcurrencyPermit;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::metrics::ListenerKind;
use crate::telemetry::tasks::Task;
use crate::web::client_address::ClientAddress;

/// TCP keep-alive: the first probe after 10 s of silence, and another every 4 s. A client that vanished does
/// not close its connection, so only unanswered probes reveal it.
const TCP_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(4));
/// `TCP_USER_TIMEOUT`: the kernel drops a connection if the peer has acknowledged neither data nor probes for
/// 18 s. A client that reads nothing of a response looks the same. So if an administrator raises
/// `limits.body_time` above [`USUAL_BODY_TIME`], that longer time is used for both cases.
const GIVEN_UP: Duration = Duration::from_secs(18);
/// The default of `limits.body_time`.
const USUAL_BODY_TIME: Duration = Duration::from_secs(30);

static TOO_MANY_CONNECTIONS: LogThrottle = LogThrottle::new();
static TOO_MANY_OF_ONE: LogThrottle = LogThrottle::new();
static NOT_ACCEPTED: LogThrottle = LogThrottle::a_minute();

pub(super) const fn accepting(side: ListenerKind) -> Task {
    match side {
        ListenerKind::Public => Task::Connections,
        ListenerKind::Admin => Task::AdminConnections,
        ListenerKind::Plain => Task::PlainConnections,
    }
}

/// The accept loop of one listener.
pub(super) struct Acceptor<'a> {
    pub(super) present: &'a Arc<CurrentService>,
    pub(super) listener: &'a TcpListener,
    pub(super) side: ListenerKind,
    /// Each open connection holds one permit.
    pub(super) permits: Arc<Semaphore>,
}

impl Acceptor<'_> {
    /// Accepts connections for ever.
    pub(super) async fn accept(&self, shutdown: &Shutdown, work: AcceptMode) {
        // Connection settings stay as they were at start; a reload does not change them
        // (`config/changes.rs`).
        let (protocols, body_time) = {
            let app = self.present.app();
            let http2 = self.side == ListenerKind::Public && app.config().http2;
            let protocols = Protocols::new(app.config(), http2, offer(&app, self.side, http2));
            (Arc::new(protocols), app.config().limits.body_time)
        };
        notice_vanished_clients(self.listener, body_time);
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // Usually the process is out of file descriptors: give open connections a moment to end.
                    if let Some(left_out) = NOT_ACCEPTED.admit() {
                        tracing::error!(%cause, left_out, "accepting a connection failed");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            panic_point!(accepting(self.side).name());
            let app = self.present.app();
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                app.metrics().limited("connections");
                if let Some(left_out) = TOO_MANY_CONNECTIONS.admit() {
                    tracing::warn!(left_out, "the limit of open connections is reached");
                }
                continue; // dropped: closed at once
            };
            let Ok(ours) = permit_of(&app, peer.ip()) else {
                if let Some(left_out) = TOO_MANY_OF_ONE.admit() {
                    tracing::warn!(
                        left_out,
                        "the limit of open connections of one address is reached"
                    );
                }
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (present, protocols) = (Arc::clone(self.present), Arc::clone(&protocols));
            let watcher = shutdown.watcher();
            let open = app.metrics().connection(self.side);
            tokio::spawn(async move {
                let _held = (permit, ours, open);
                protocols.serve((stream, peer), &present, work, watcher).await;
            });
        }
    }
}

/// Returns what a listener offers in TLS handshakes; `None` if it speaks no TLS.
fn offer(app: &App, side: ListenerKind, http2: bool) -> Option<AlpnOffer> {
    let config = app.config();
    let speaks_tls = match side {
        ListenerKind::Public => config.tls.is_some(),
        ListenerKind::Admin => config.admin.as_ref().is_some_and(|admin| admin.tls),
        ListenerKind::Plain => false,
    };
    speaks_tls.then_some(AlpnOffer { http2, acme: side == ListenerKind::Public })
}

/// Sets the options of the listening socket that reveal vanished clients. Accepted sockets inherit them.
fn notice_vanished_clients(listener: &TcpListener, body_time: Duration) {
    let (time, interval) = TCP_KEEPALIVE;
    let asking = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(2);
    let socket = SockRef::from(listener);
    let mut asked = socket.set_tcp_keepalive(&asking);
    #[cfg(target_os = "linux")]
    {
        let given_up = if body_time > USUAL_BODY_TIME { body_time } else { GIVEN_UP };
        asked = asked.and_then(|()| socket.set_tcp_user_timeout(Some(given_up)));
    }
    if let Err(cause) = asked {
        tracing::warn!(%cause, "clients that vanish are noticed late: no TCP keep-alive");
    }
}

/// The address has reached its limit of open connections.
struct TooManyConnections;

/// Takes a permit from the connection limit of the peer's address. Returns `None` if the address may belong
/// to many clients: it is a trusted proxy's, or it is private.
fn permit_of(
    app: &App,
    peer: IpAddr,
) -> Result<Option<ConcurrencyPermit<IpAddr>>, TooManyConnections> {
    match ClientAddress::find(peer, &HeaderMap::new(), &app.config().trusted_proxies).0 {
        Some(address) => app.rates().connection(address).map(Some).ok_or(TooManyConnections),
        None => Ok(None),
    }
}
