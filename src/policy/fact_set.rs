//! A set of kinds of facts about a person, such as those that rules read or that a response omitted.

/// A set of kinds of facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set with named members")]
pub struct FactSet {
    pub groups: bool,
    pub roles: bool,
    pub permissions: bool,
    pub email: bool,
    pub claims: bool,
}

impl FactSet {
    /// The names in the text form, in the order of [`Self::members`].
    const NAMES: [&str; 5] = ["groups", "roles", "permissions", "email", "claims"];

    const fn members(self) -> [bool; 5] {
        [self.groups, self.roles, self.permissions, self.email, self.claims]
    }

    const fn of([groups, roles, permissions, email, claims]: [bool; 5]) -> Self {
        Self { groups, roles, permissions, email, claims }
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Returns the kinds in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (ours, theirs) = (self.members(), other.members());
        Self::of(std::array::from_fn(|at| ours[at] || theirs[at]))
    }

    /// Returns the kinds in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let (ours, theirs) = (self.members(), other.members());
        Self::of(std::array::from_fn(|at| ours[at] && theirs[at]))
    }

    /// Parses the output of [`std::fmt::Display`]. Ignores unknown names.
    pub fn parse(text: &str) -> Self {
        let members = Self::NAMES.map(|name| text.split(' ').any(|word| word == name));
        Self::of(members)
    }
}

impl std::fmt::Display for FactSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = Self::NAMES.into_iter().zip(self.members());
        let names: Vec<&str> = named.filter_map(|(name, is_in)| is_in.then_some(name)).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_as_it_was_written() {
        for bits in 0..32_u8 {
            let set = FactSet::of(std::array::from_fn(|at| bits & (1 << at) != 0));
            assert_eq!(FactSet::parse(&set.to_string()), set);
            assert_eq!(set.union(FactSet::default()), set);
            assert!(set.intersection(FactSet::default()).is_empty());
        }
        assert!(FactSet::parse("something new").is_empty());
    }
}
