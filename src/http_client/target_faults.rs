//! Why a target of the gateway could not be reached, as a class that metrics and pages show and in the words
//! of the cause. The words are for administrators: clients learn nothing about targets.

use std::error::Error;
use std::io::{self, ErrorKind};

use rustls::AlertDescription;

use crate::telemetry::metrics::TargetFailure;

/// There was no connection within `connect_timeout`.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub(super) struct ConnectTimedOut;

/// Why a request to a target failed before its response began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFault {
    /// Its class.
    pub failure: TargetFailure,
    /// What the operating system or TLS says.
    pub cause: String,
}

impl TargetFault {
    /// The fault of a failed attempt to connect.
    pub fn connecting(error: &(dyn Error + 'static)) -> Self {
        let (found, cause, kind) = search(error);
        let by_kind = match kind {
            Some(ErrorKind::ConnectionRefused) => TargetFailure::Refused,
            Some(ErrorKind::TimedOut) => TargetFailure::ConnectTimeout,
            _ => TargetFailure::Unreachable,
        };
        Self { failure: found.unwrap_or(by_kind), cause }
    }

    /// The fault of a request that failed on an open connection.
    pub fn on_connection(error: &(dyn Error + 'static)) -> Self {
        let (found, cause, _) = search(error);
        Self { failure: found.unwrap_or(TargetFailure::Broken), cause }
    }

    /// The fault that an alert of TLS names; `None` if the error is something else.
    pub(super) fn alert(error: &(dyn Error + 'static)) -> Option<Self> {
        let (found, cause, _) = search(error);
        found.map(|failure| Self { failure, cause })
    }
}

/// Searches an error and its causes for one that has a class of its own. Returns this class, the words of the
/// innermost cause, and what kind of I/O error it is.
fn search(error: &(dyn Error + 'static)) -> (Option<TargetFailure>, String, Option<ErrorKind>) {
    let (mut error, mut kind) = (error, None);
    loop {
        if error.is::<ConnectTimedOut>() {
            return (Some(TargetFailure::ConnectTimeout), error.to_string(), kind);
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return (Some(class_of(tls)), tls.to_string(), kind);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
            // `source` of an I/O error skips the error in it.
            if let Some(inner) = io.get_ref() {
                error = inner;
                continue;
            }
        }
        // The type of this error is private to the library.
        let is_name = error.to_string() == "dns error";
        match error.source() {
            Some(source) if is_name => {
                return (Some(TargetFailure::Name), source.to_string(), kind);
            }
            Some(source) => error = source,
            None => return (None, error.to_string(), kind),
        }
    }
}

fn class_of(error: &rustls::Error) -> TargetFailure {
    match error {
        rustls::Error::InvalidCertificate(_) => TargetFailure::Certificate,
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            // The signature of an authority with the right name and another key.
            | AlertDescription::DecryptError,
        ) => TargetFailure::ClientCertificate,
        _ => TargetFailure::Tls,
    }
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[test]
    fn the_cause_is_found_however_deep_it_is() {
        let untrusted = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(ErrorKind::InvalidData, untrusted));
        let fault = TargetFault::connecting(&wrapped);
        assert_eq!(fault.failure, TargetFailure::Certificate);
        assert!(fault.cause.contains("UnknownIssuer"), "{fault:?}");

        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let fault = TargetFault::on_connection(&io::Error::other(alert));
        assert_eq!(fault.failure, TargetFailure::ClientCertificate);

        for (kind, failure) in [
            (ErrorKind::ConnectionRefused, TargetFailure::Refused),
            (ErrorKind::TimedOut, TargetFailure::ConnectTimeout),
            (ErrorKind::UnexpectedEof, TargetFailure::Unreachable),
        ] {
            let fault = TargetFault::connecting(&io::Error::new(kind, "why"));
            assert_eq!((fault.failure, fault.cause.as_str()), (failure, "why"));
            assert_eq!(
                TargetFault::on_connection(&io::Error::from(kind)).failure,
                TargetFailure::Broken
            );
            assert_eq!(TargetFault::alert(&io::Error::from(kind)), None);
        }
        assert_eq!(
            TargetFault::connecting(&ConnectTimedOut).failure,
            TargetFailure::ConnectTimeout
        );
    }
}
