//! Laws: true for every input, every order of requests and every reading of the clock.

mod fuzz_corpus;
mod hostile_tokens;
mod life_of_grants;
mod moving_clock;
mod odd_inputs;
mod properties;
pub(crate) mod races;
mod rate_limits;
mod refusals_write_nothing;
mod secrets_never_leak;
