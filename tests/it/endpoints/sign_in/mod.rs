//! A person's way in: `/authorize`, the pages, the identity provider, and back.

mod account_choice;
mod authorize;
mod awaiting_approval;
mod callback;
mod consent;
mod flood;
mod redirect_policy;
mod remembered_consent;
mod scope_choice;
mod speculative;
mod step_up;
mod unknown_scopes;
