//! Requests that Portcullis makes itself.

mod network_shapes;
mod private_names;
