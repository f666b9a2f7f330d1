//! Concurrency limits for each person, and for each client of a person. The second keeps one client from
//! using up all permits of its person.
//!
//! Every call of an MCP server takes a permit. So people and clients are counted by a keyed hash of their
//! id: a permit copies no text, and releasing it hashes nothing. Two people whose hashes are equal would
//! share a limit; with 64 bits and a random key, nobody can bring that about.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::oauth::random_key::RandomKeys;

/// The number of permits in use, for each person and client.
pub(super) struct ByClient {
    of_person: u32,
    of_client: u32,
    permits: Arc<PermitsInUse>,
}

#[derive(Default)]
struct PermitsInUse {
    hasher: RandomState,
    people: Mutex<HashMap<u64, PersonPermits, RandomKeys>>,
}

/// A list of clients: a person uses only a few at a time, and a short list is searched faster than a map.
#[derive(Default)]
struct PersonPermits {
    all: u32,
    clients: Vec<(u64, u32)>,
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
    person: u64,
    client: u64,
    permits: Arc<PermitsInUse>,
}

impl ByClient {
    pub(super) fn new(of_person: u32, of_client: u32) -> Self {
        Self { of_person, of_client, permits: Arc::default() }
    }

    /// The same permits in use, with other limits.
    pub(super) fn with(&self, of_person: u32, of_client: u32) -> Self {
        Self { of_person, of_client, permits: Arc::clone(&self.permits) }
    }

    pub(super) fn enter(
        &self,
        subject: &str,
        client_id: &str,
    ) -> Result<RequestPermit, PermitRefused> {
        let hasher = &self.permits.hasher;
        let (person, client) = (hasher.hash_one(subject), hasher.hash_one(client_id));
        let mut people = self.permits.people.lock();
        // A limit of zero would leave an empty entry behind; the configuration does not allow one.
        let counts = people.entry(person).or_default();
        let at = counts.clients.iter().position(|(known, _)| *known == client);
        let count = at.map_or(0, |at| counts.clients[at].1);
        if counts.all >= self.of_person {
            return Err(PermitRefused::Person);
        }
        if count >= self.of_client {
            return Err(PermitRefused::Client);
        }
        counts.all += 1;
        match at {
            Some(at) => counts.clients[at].1 += 1,
            None => counts.clients.push((client, 1)),
        }
        Ok(RequestPermit { person, client, permits: Arc::clone(&self.permits) })
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        let mut people = self.permits.people.lock();
        let Some(counts) = people.get_mut(&self.person) else { return };
        counts.all = counts.all.saturating_sub(1);
        if counts.all == 0 {
            people.remove(&self.person);
            return;
        }
        if let Some(at) = counts.clients.iter().position(|(known, _)| *known == self.client) {
            counts.clients[at].1 -= 1;
            if counts.clients[at].1 == 0 {
                counts.clients.swap_remove(at);
            }
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
        assert!(limiter.permits.people.lock().is_empty());
    }
}
