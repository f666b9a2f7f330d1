//! Which scopes a person granted. Some services let the person untick some, others answer with a shorter list
//! that means the same, or in another spelling.

use std::collections::BTreeSet;

use super::authorize::OFFLINE_ACCESS;
use crate::config::{ConnectionConfig, GrantedScopes};

/// Returns the granted scopes, in the configuration's spelling where a scope is known there. `stated` is the
/// response's `scope`; without it, everything that was `asked` for is granted (RFC 6749 §5.1).
pub(super) fn granted(
    config: &ConnectionConfig,
    asked: &[String],
    stated: Option<&str>,
) -> BTreeSet<String> {
    let (GrantedScopes::Stated, Some(stated)) = (config.preset.granted, stated) else {
        return asked.iter().cloned().collect();
    };
    let words = stated.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty());
    let stated: BTreeSet<String> = words.map(str::to_owned).collect();
    let known = asked.iter().chain(&config.scopes);
    let covered = known.filter(|scope| config.preset.covers(&stated, scope)).cloned();
    let is_shown = |scope: &&String| asked.contains(scope) || !is_ours(config, scope);
    stated.iter().filter(is_shown).cloned().chain(covered).collect()
}

/// Whether we ask for this scope ourselves, to know the account or to get a refresh token, in any spelling.
fn is_ours(config: &ConnectionConfig, scope: &str) -> bool {
    let extra = config.preset.extra_scopes;
    let is_extra = |scope: &str| scope == OFFLINE_ACCESS || extra.contains(&scope);
    let includes = config.preset.includes.iter().filter(|(including, _)| *including == scope);
    is_extra(scope) || includes.flat_map(|(_, inside)| *inside).any(|inside| is_extra(inside))
}

/// Returns the scopes that were asked for and not granted.
pub(super) fn missing(asked: &[String], granted: &BTreeSet<String>) -> Vec<String> {
    asked.iter().filter(|scope| !granted.contains(*scope)).cloned().collect()
}
