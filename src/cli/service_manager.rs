//! Tells systemd what the server does (sd_notify), so that `systemctl start` waits until it serves, and fails if it
//! never does. Without systemd this does nothing.

#[cfg(target_os = "linux")]
mod socket {
    use std::ffi::OsStr;
    use std::io;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// Sends a message to a socket: a path, or an abstract name that begins with `@`.
    pub(super) fn send(to: &OsStr, message: &str) -> io::Result<()> {
        let address = match to.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(to)?,
        };
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
        Ok(())
    }
}

/// The server listens, and the schema of its database is up to date.
pub(super) fn serving() {
    tell("READY=1");
}

/// The server was told to end.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

#[cfg(target_os = "linux")]
fn tell(message: &str) {
    let named = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
    if let Some(name) = named
        && let Err(cause) = socket::send(&name, message)
    {
        tracing::warn!(%cause, message, "systemd could not be told");
    }
}

#[cfg(not(target_os = "linux"))]
fn tell(_: &str) {}
