//! The search index of people: whole e-mail addresses, ids at the identity provider, the words of names and
//! of addresses before the `@`, and prefixes of words. Everything is stored as keyed hashes, so that the
//! database alone reveals neither a name nor which people share one.

use std::collections::BTreeSet;

use sqlx::AssertSqlSafe;

use crate::oauth::sealed::Purpose;
use crate::storage::upstream_sessions::Person;
use crate::storage::{Storage, StorageError, Transaction};

/// Changes with the way in which names are split, so that people are indexed again at their next login.
const METHOD: &str = "beginnings of words and of addresses, ids, 2";
/// Most words of a name that are indexed: 8.
const MAX_WORDS: usize = 8;
/// Longest prefix that is indexed: 16 letters. A longer word is also indexed as a whole.
const MAX_BEGINNING: usize = 16;
/// Shortest prefix that is indexed: 3 letters.
const SHORTEST: usize = 3;
/// Most words of a search that count: 8.
const MAX_SEARCHED: usize = 8;
/// Words inserted by one statement: 8. Each number of words is a statement of its own, which is prepared
/// once.
const AT_ONCE: usize = 8;

/// The words by which a person is found, in lower case.
pub(in crate::storage) struct SearchWords {
    words: BTreeSet<String>,
    digest: String,
}

impl SearchWords {
    /// Returns the keyed hash of all words. A person with this digest is indexed by these words.
    pub(in crate::storage) fn digest(&self) -> &str {
        &self.digest
    }
}

impl Storage {
    /// Returns the words by which a person is found: their e-mail address, the words of their name, and
    /// their id at the identity provider.
    pub(in crate::storage) fn words_of(
        &self,
        person: &Person,
        upstream_subject: &str,
    ) -> SearchWords {
        let mut words = words_of(person);
        words.insert(upstream_subject.trim().to_lowercase());
        let mut parts = vec![METHOD.as_bytes()];
        parts.extend(words.iter().map(String::as_bytes));
        SearchWords { digest: self.sealer.mac(Purpose::Search, &parts), words }
    }

    /// Indexes a person by these words, and no longer by those of an earlier name.
    pub(super) async fn index_again(
        &self,
        step: &mut Transaction,
        subject: &str,
        words: &SearchWords,
    ) -> Result<(), StorageError> {
        sqlx::query("DELETE FROM people_words WHERE subject = $1")
            .bind(subject)
            .execute(&mut **step)
            .await?;
        self.insert_words(step, subject, words).await?;
        sqlx::query("UPDATE people SET words_digest = $2 WHERE subject = $1")
            .bind(subject)
            .bind(words.digest())
            .execute(&mut **step)
            .await?;
        Ok(())
    }

    /// Indexes a person who was not indexed before, except for their digest.
    pub(super) async fn insert_words(
        &self,
        step: &mut Transaction,
        subject: &str,
        words: &SearchWords,
    ) -> Result<(), StorageError> {
        let hashes = self.hashes_of(words);
        for hashes in hashes.chunks(AT_ONCE) {
            let rows: Vec<String> =
                (0..hashes.len()).map(|row| format!("(${}, $1)", row + 2)).collect();
            let sql = format!(
                "INSERT INTO people_words (word, subject) VALUES {}
                 ON CONFLICT (word, subject) DO NOTHING",
                rows.join(", ")
            );
            let mut insert = sqlx::query(AssertSqlSafe(sql)).bind(subject); // placeholders only
            for hash in hashes {
                insert = insert.bind(hash);
            }
            insert.execute(&mut **step).await?;
        }
        Ok(())
    }

    /// Returns the hashes under which these words are indexed.
    pub(in crate::storage) fn hashes_of(&self, words: &SearchWords) -> Vec<String> {
        words.words.iter().map(|word| self.word(word)).collect()
    }

    /// Returns the hashes of the words in a search. A person must match all of them.
    pub(crate) fn searched(&self, search: &str) -> Vec<String> {
        // Without what surrounds a pasted name or address: "Dubois, Hana <hana@example.com>".
        let bare = |word: &str| {
            let kept = word.trim_matches([',', ';', '.', '<', '>', '(', ')', '"']);
            kept.to_lowercase()
        };
        let words: BTreeSet<String> =
            search.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect();
        words.iter().take(MAX_SEARCHED).map(|word| self.word(word)).collect()
    }

    /// Returns the hash of a word. Without the secret key it can neither be read nor guessed.
    pub(crate) fn word(&self, word: &str) -> String {
        self.sealer.mac(Purpose::Search, &[word.trim().to_lowercase().as_bytes()])
    }
}

/// Returns all words by which a person is found, in lower case.
fn words_of(person: &Person) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    if let Some(email) = &person.email {
        let email = email.trim().to_lowercase();
        if let Some((before_at, _)) = email.split_once('@') {
            add_with_parts(&mut words, before_at);
        }
        words.insert(email);
    }
    let name = person.name.as_deref().unwrap_or_default().to_lowercase();
    for word in name.split_whitespace().take(MAX_WORDS) {
        add_with_parts(&mut words, word);
    }
    words
}

/// Adds the word, and each of its parts: "O'Neil-Dubois" is also found by "Neil" and by "Dubois".
fn add_with_parts(words: &mut BTreeSet<String>, word: &str) {
    add(words, word);
    for part in word.split(|c: char| !c.is_alphanumeric()).take(MAX_WORDS) {
        add(words, part);
    }
}

/// Adds the word and its prefixes.
fn add(words: &mut BTreeSet<String>, word: &str) {
    let Some(first) = word.chars().next() else { return };
    words.insert(word.to_owned());
    // In these scripts, one character carries as much as three letters.
    let shortest = if is_dense(first) { 1 } else { SHORTEST };
    let ends = word.char_indices().map(|(at, c)| at + c.len_utf8());
    for end in ends.take(MAX_BEGINNING).skip(shortest - 1) {
        words.insert(word[..end].to_owned());
    }
}

/// Returns whether this is a Chinese character, kana or hangul.
fn is_dense(c: char) -> bool {
    matches!(c,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Facts;

    fn words(name: &str) -> Vec<String> {
        let person = Person { name: Some(name.to_owned()), email: None, facts: Facts::default() };
        words_of(&person).into_iter().collect()
    }

    #[test]
    fn beginnings_have_three_letters_or_one_character_of_a_dense_script() {
        assert_eq!(words("Hana"), ["han", "hana"]);
        assert_eq!(words("Li Wu"), ["li", "wu"]);
        assert_eq!(words("山田"), ["山", "山田"]);
        assert_eq!(words("O'Neil"), ["nei", "neil", "o", "o'n", "o'ne", "o'nei", "o'neil"]);
        assert_eq!(words(" \t "), Vec::<String>::new());
        assert_eq!(words("ÉMILE"), ["émi", "émil", "émile"]);
    }

    #[test]
    fn an_address_is_found_by_what_is_before_the_at() {
        let email = Some("Hana.Dubois@Example.com".to_owned());
        let words = words_of(&Person { name: None, email, facts: Facts::default() });
        for word in ["hana.dubois@example.com", "hana.dubois", "hana", "han", "dub", "dubois"] {
            assert!(words.contains(word), "{word}");
        }
        for word in ["example.com", "exa", "@", "ana"] {
            assert!(!words.contains(word), "{word}");
        }
    }

    #[test]
    fn a_name_has_so_many_words_and_no_more() {
        let long = "x".repeat(1000);
        assert_eq!(words(&long).len(), 15, "beginnings of 3 to 16 letters, and the whole");
        let many = vec![long.as_str(); 50].join(" ");
        assert_eq!(words(&many).len(), 15);
        let many = (0..1000).map(|n| format!("word{n:04}-part")).collect::<Vec<_>>().join(" ");
        assert!(words(&many).len() < 200, "{}", words(&many).len());
    }
}
