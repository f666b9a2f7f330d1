-- People are found by the beginnings of their names, not by whole words alone: a row of people_words for each
-- beginning, as a keyed hash like the words themselves.

-- Keyed hash of the words that a person is found by, and of how they are taken from a name: who has the same
-- is not indexed again at each sign-in. NULL: by an earlier version, and still to be indexed.
ALTER TABLE people ADD COLUMN words_mark TEXT;
CREATE INDEX people_to_index ON people (subject) WHERE words_mark IS NULL;
