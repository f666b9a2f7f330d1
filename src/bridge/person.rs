//! Who calls, as the gateway's headers say, and what a process learns about it.

use axum::http::HeaderMap;
use percent_encoding::percent_decode_str;

/// The longest value that is accepted, in bytes.
const LONGEST: usize = 1024;

/// The person that a request is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BridgePerson {
    /// Never changes for a person.
    pub(super) subject: String,
    /// The client that they use. A process that several clients share does not learn it.
    client: Option<String>,
    name: Option<String>,
    email: Option<String>,
    email_verified: Option<String>,
}

/// Why the headers are not believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAPerson(pub(super) &'static str);

impl BridgePerson {
    /// Reads the headers; `None` if they name nobody.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, NotAPerson> {
        let Some(subject) = value(headers, "x-portcullis-subject")? else { return Ok(None) };
        if subject.is_empty() {
            return Err(NotAPerson("X-Portcullis-Subject is empty"));
        }
        Ok(Some(Self {
            subject,
            client: value(headers, "x-portcullis-client")?,
            name: value(headers, "x-portcullis-name")?,
            email: value(headers, "x-portcullis-email")?,
            email_verified: value(headers, "x-portcullis-email-verified")?,
        }))
    }

    /// Returns the person without the client that they use.
    pub(super) fn with_any_client(&self) -> Self {
        Self { client: None, ..self.clone() }
    }

    /// Whether this is the same person with the same client. Names may change in between.
    pub(super) fn is_same_caller(&self, other: &Self) -> bool {
        self.subject == other.subject && self.client == other.client
    }

    /// Returns the variables for the process. Scopes are not among them: they belong to a token, and change
    /// while the process runs.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("PORTCULLIS_SUBJECT", Some(&self.subject)),
            ("PORTCULLIS_CLIENT", self.client.as_ref()),
            ("PORTCULLIS_NAME", self.name.as_ref()),
            ("PORTCULLIS_EMAIL", self.email.as_ref()),
            ("PORTCULLIS_EMAIL_VERIFIED", self.email_verified.as_ref()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?.as_str())))
    }
}

/// Returns a header, decoded. The gateway percent-encodes what a header cannot carry.
fn value(headers: &HeaderMap, name: &str) -> Result<Option<String>, NotAPerson> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(NotAPerson("a header of the gateway is repeated"));
    }
    let value = value.to_str().map_err(|_| NotAPerson("a header of the gateway is not ASCII"))?;
    let value = percent_decode_str(value)
        .decode_utf8()
        .map_err(|_| NotAPerson("a header of the gateway is not UTF-8"))?;
    if value.len() > LONGEST || value.chars().any(char::is_control) {
        return Err(NotAPerson("a header of the gateway is too long or has control characters"));
    }
    Ok(Some(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn the_environment_has_the_decoded_values() {
        let headers = headers(&[
            ("x-portcullis-subject", "okta:00u1"),
            ("x-portcullis-client", "https://claude.ai/client"),
            ("x-portcullis-scopes", "read write"),
            ("x-portcullis-name", "J%C3%BCrgen 100%25"),
        ]);
        let person = BridgePerson::of(&headers).unwrap().unwrap();
        let environment: Vec<_> = person.environment().collect();
        let expected = [
            ("PORTCULLIS_SUBJECT", "okta:00u1"),
            ("PORTCULLIS_CLIENT", "https://claude.ai/client"),
            ("PORTCULLIS_NAME", "Jürgen 100%"),
        ];
        assert_eq!(environment, expected);
        assert!(
            person.with_any_client().environment().all(|(name, _)| name != "PORTCULLIS_CLIENT")
        );
        assert_eq!(BridgePerson::of(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn values_that_could_confuse_a_process_are_refused() {
        for bad in ["a%00b", "a%0Ab", "", "%FF", "\u{e9}", &"x".repeat(LONGEST + 1)] {
            assert!(BridgePerson::of(&headers(&[("x-portcullis-subject", bad)])).is_err(), "{bad}");
        }
        let twice = headers(&[("x-portcullis-subject", "a"), ("x-portcullis-subject", "b")]);
        assert!(BridgePerson::of(&twice).is_err());
    }
}
