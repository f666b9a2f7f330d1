//! What a person can do on a page with a message: the same again, or the same with another account. No address and
//! no parameter of a request is on the page: the browser loads its own address again, or sends back what we sealed.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing but a link back to the client, if there is one.
    Nothing,
    /// To do the same again.
    Again,
    /// To do the same as somebody else.
    AnotherAccount,
}

/// How what failed can be done again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeat<'a> {
    /// The authorization request, sealed (`web/again.rs`). If it is known, both ways lead to the consent page.
    pub request: Option<&'a str>,
    /// The path and the query of our page on which it begins, if that is another page than the one that failed.
    pub page: Option<&'a str>,
    /// The sign-in to our own pages, if that is what came back.
    pub sign_in: Option<&'static str>,
    /// Whether the browser may load the page again.
    pub reload: bool,
    /// The path at which a sign-in to our own pages with another account begins; `None` on other pages, and where
    /// the provider cannot let a person choose.
    pub other_account: Option<&'static str>,
    /// Whether the provider can let a person choose another account for the authorization request.
    pub may_choose: bool,
}

/// A link or a form on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOn<'a> {
    /// A link to the page itself.
    Reload,
    /// A link to another page of ours, by its path and query.
    Page(&'a str),
    /// The form that shows the consent page for this sealed request again.
    Authorization {
        /// The request.
        sealed: &'a str,
        /// `same` or `other`.
        account: &'static str,
    },
    /// The form that begins a sign-in to our own pages.
    SignIn {
        /// The path that receives the form.
        action: &'static str,
        /// `same` or `other`.
        account: &'static str,
    },
}

const SAME: &str = "same";
const OTHER: &str = "other";

impl<'a> Repeat<'a> {
    /// Returns how to do what is offered, if it is possible.
    pub fn way_on(&self, offer: NextStep) -> Option<WayOn<'a>> {
        let sign_in = |action, account| WayOn::SignIn { action, account };
        match offer {
            NextStep::Nothing => None,
            NextStep::Again => match self.request {
                Some(sealed) => Some(WayOn::Authorization { sealed, account: SAME }),
                None => self
                    .page
                    .map(WayOn::Page)
                    .or_else(|| self.sign_in.map(|action| sign_in(action, SAME)))
                    .or_else(|| self.reload.then_some(WayOn::Reload)),
            },
            NextStep::AnotherAccount => match self.request {
                Some(sealed) if self.may_choose => {
                    Some(WayOn::Authorization { sealed, account: OTHER })
                }
                Some(_) => None,
                None => self
                    .other_account
                    .filter(|_| self.may_choose)
                    .map(|action| sign_in(action, OTHER)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_known_is_repeated_and_otherwise_the_page_or_the_sign_in() {
        let all = Repeat {
            page: None,
            request: Some("sealed"),
            sign_in: Some("/sign-in"),
            reload: true,
            other_account: Some("/sign-in"),
            may_choose: true,
        };
        let again = |repeat: Repeat<'static>| repeat.way_on(NextStep::Again);
        let sealed = |account| Some(WayOn::Authorization { sealed: "sealed", account });
        let sign_in = |account| Some(WayOn::SignIn { action: "/sign-in", account });
        assert_eq!(again(all), sealed("same"));
        assert_eq!(again(Repeat { request: None, ..all }), sign_in("same"));
        let reload = Repeat { request: None, sign_in: None, ..all };
        assert_eq!(again(reload), Some(WayOn::Reload));
        assert_eq!(again(Repeat { reload: false, ..reload }), None);
        assert_eq!(all.way_on(NextStep::AnotherAccount), sealed("other"));
        let pages = Repeat { request: None, ..all };
        assert_eq!(pages.way_on(NextStep::AnotherAccount), sign_in("other"));
        for repeat in [all, pages] {
            let cannot = Repeat { may_choose: false, ..repeat };
            assert_eq!(cannot.way_on(NextStep::AnotherAccount), None);
            assert_eq!(repeat.way_on(NextStep::Nothing), None);
        }
        assert_eq!(Repeat::default().way_on(NextStep::Again), None);
    }
}
