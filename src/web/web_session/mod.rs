//! Web sessions: people who are signed in to our own pages, the admin pages and `/account`. Each of the two
//! realms has its own sessions and cookies, and accepts a form only from the page that was shown (threat
//! AD-01).

mod realm;
mod rights;
mod session;
mod sign_in;

pub use realm::home;
pub use session::{
    SignedInPerson, confirmation, enter, is_confirmed, read_form, read_form_of_session, sign_out,
    signed_out, visitor,
};
pub use sign_in::{
    begin_sign_in, begin_sign_in_as_another, finish_sign_in, passed_on, sign_in_page,
};
