//! Concurrency limits for each person, and for each client of a person. The second keeps one client from
//! using up all permits of its person.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The number of permits in use, for each person and client.
pub(super) struct ByClient {
    of_person: u32,
    of_client: u32,
    people: Arc<Mutex<HashMap<String, PersonPermits>>>,
}

/// A list of clients: a person uses only a few at a time, and a short list is searched faster than a map.
#[derive(Default)]
struct PersonPermits {
    all: u32,
    clients: Vec<(String, u32)>,
}

/// Which limit has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitRefused {
    /// The limit of the person.
    Person,
    /// The limit of this client of the person.
    Client,
}

/// A permit taken by a client of a person. Dropping it releases it.
pub struct RequestPermit {
    subject: String,
    client_id: String,
    people: Arc<Mutex<HashMap<String, PersonPermits>>>,
}

impl ByClient {
    pub(super) fn new(of_person: u32, of_client: u32) -> Self {
        Self { of_person, of_client, people: Arc::default() }
    }

    /// The same permits in use, with other limits.
    pub(super) fn with(&self, of_person: u32, of_client: u32) -> Self {
        Self { of_person, of_client, people: Arc::clone(&self.people) }
    }

    pub(super) fn enter(
        &self,
        subject: &str,
        client_id: &str,
    ) -> Result<RequestPermit, PermitRefused> {
        let mut people = self.people.lock();
        if !people.contains_key(subject) {
            people.insert(subject.to_owned(), PersonPermits::default());
        }
        let Some(person) = people.get_mut(subject) else { return Err(PermitRefused::Person) };
        let at = person.clients.iter().position(|(known, _)| known == client_id);
        let count = at.map_or(0, |at| person.clients[at].1);
        // A limit of zero would leave an empty entry behind; the configuration does not allow one.
        if person.all >= self.of_person {
            return Err(PermitRefused::Person);
        }
        if count >= self.of_client {
            return Err(PermitRefused::Client);
        }
        person.all += 1;
        match at {
            Some(at) => person.clients[at].1 += 1,
            None => person.clients.push((client_id.to_owned(), 1)),
        }
        let people = Arc::clone(&self.people);
        Ok(RequestPermit { subject: subject.to_owned(), client_id: client_id.to_owned(), people })
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        let mut people = self.people.lock();
        let Some(person) = people.get_mut(&self.subject) else { return };
        person.all = person.all.saturating_sub(1);
        if let Some(at) = person.clients.iter().position(|(known, _)| *known == self.client_id) {
            person.clients[at].1 -= 1;
            if person.clients[at].1 == 0 {
                person.clients.swap_remove(at);
            }
        }
        if person.all == 0 {
            people.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_a_part_and_the_person_all_and_both_are_given_back() {
        let limiter = ByClient::new(4, 3);
        let mut held: Vec<_> = (0..3).map(|_| limiter.enter("bob", "a").ok()).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(limiter.enter("bob", "a").err(), Some(PermitRefused::Client));
        let other = limiter.enter("bob", "b").ok();
        assert!(other.is_some());
        for client in ["a", "b", "c"] {
            assert_eq!(limiter.enter("bob", client).err(), Some(PermitRefused::Person));
        }
        assert!(limiter.enter("alice", "a").is_ok(), "somebody else is not touched");
        held.pop();
        assert!(limiter.enter("bob", "a").is_ok());
        drop((held, other));
        assert!(limiter.people.lock().is_empty());
    }
}
