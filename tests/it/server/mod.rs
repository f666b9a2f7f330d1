//! The listener: connections, timeouts, HTTP/2, and reverse proxies in front.

mod below_a_path;
mod connections;
mod http2;
mod listener;
mod proxies;
mod smuggling;
mod tls;
mod vanished_clients;
mod waiting_streams;
