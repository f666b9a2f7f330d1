//! Somebody at the admin pages, or at `/account`: a browser that signs in and presses buttons.

use regex_lite::Regex;

use super::TestApp;
use super::browser::{Browser, Form, attribute, unescape};
use super::http::{Answer, encode};

pub(crate) struct Console {
    pub browser: Browser,
    /// Origin of the pages.
    pub origin: String,
    home: &'static str,
}

impl Console {
    /// The admin pages, not signed in yet.
    pub(crate) fn admin(app: &TestApp) -> Self {
        Self { browser: Browser::default(), origin: app.admin_url.clone(), home: "/" }
    }

    /// `/account`, not signed in yet.
    pub(crate) fn account(app: &TestApp) -> Self {
        Self { browser: Browser::default(), origin: app.url.clone(), home: "/account" }
    }

    /// The same pages, signed in.
    pub(crate) async fn signed_in(self, app: &TestApp, person: &str) -> Self {
        let answer = self.sign_in(app, person).await;
        answer.assert_leads_to(&format!("{}{}", self.origin, self.home));
        self
    }

    /// Signs in at the identity provider; answers where the browser goes next, back at the pages.
    pub(crate) async fn nearly_signed_in(&self, app: &TestApp, person: &str) -> String {
        let home = self.at(self.home);
        let page = self.browser.get(&home).await;
        page.assert_page(401);
        self.nearly_pass_provider(app, &Form::of(&page, &home), person).await
    }

    /// Presses the button of the sign-in page and signs in at the identity provider.
    pub(crate) async fn sign_in(&self, app: &TestApp, person: &str) -> Answer {
        let home = self.at(self.home);
        let page = self.browser.get(&home).await;
        page.assert_page(401);
        self.pass_provider(app, &Form::of(&page, &home), person).await
    }

    /// Sends the form of a sign-in page, signs in at the identity provider, and comes back.
    pub(crate) async fn pass_provider(&self, app: &TestApp, form: &Form, person: &str) -> Answer {
        let back = self.nearly_pass_provider(app, form, person).await;
        self.browser.get(&back).await
    }

    async fn nearly_pass_provider(&self, app: &TestApp, form: &Form, person: &str) -> String {
        let answer = self.browser.post(&form.action, &form.with(&[]), &self.origin).await;
        answer.assert_leads_to(app.idp.issuer());
        self.nearly_log_in_at(app, answer.location(), person).await
    }

    /// Begins a sign-in that the provider answers with an error.
    pub(crate) async fn come_back_with_an_error(&self, app: &TestApp) -> Answer {
        let home = self.at(self.home);
        let page = self.browser.get(&home).await;
        let form = Form::of(&page, &home);
        let answer = self.browser.post(&form.action, &form.with(&[]), &self.origin).await;
        let back = self.browser.get(answer.location()).await;
        back.assert_leads_to(&app.at("/auth/callback"));
        let passed_on = self.browser.get(back.location()).await;
        passed_on.assert_leads_to(&self.origin);
        self.browser.get(passed_on.location()).await
    }

    /// Signs in at the provider, at this address of it, and comes back.
    pub(crate) async fn log_in_at(&self, app: &TestApp, url: &str, person: &str) -> Answer {
        let back = self.nearly_log_in_at(app, url, person).await;
        self.browser.get(&back).await
    }

    async fn nearly_log_in_at(&self, app: &TestApp, url: &str, person: &str) -> String {
        let at_provider = url.to_owned();
        let page = self.browser.get(&at_provider).await;
        let answer = if page.status == 200 {
            let form = Form::of(&page, &at_provider);
            let fields = form.with(&[("username", person), ("password", person)]);
            self.browser.post(&form.action, &fields, &at_provider).await
        } else {
            page
        };
        answer.assert_leads_to(&app.at("/auth/callback"));
        let passed_on = self.browser.get(answer.location()).await;
        passed_on.assert_leads_to(&self.origin);
        passed_on.location().to_owned()
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.browser.get(&self.at(path)).await
    }

    /// A page that must be there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        answer.assert_page(200);
        answer.text().to_owned()
    }

    /// Presses a button of the page at `path`: the form whose button has this name and value.
    pub(crate) async fn press(&self, path: &str, name: &str, value: &str) -> Answer {
        self.press_with(path, name, value, &[]).await
    }

    /// The same, with fields filled in.
    pub(crate) async fn press_with(
        &self,
        path: &str,
        name: &str,
        value: &str,
        set: &[(&str, &str)],
    ) -> Answer {
        let page = self.page(path).await;
        let form = forms(&page, &self.at(path))
            .into_iter()
            .find(|(_, html)| has_button(html, name, value))
            .unwrap_or_else(|| panic!("no button {name}={value} on {path}: {page}"))
            .0;
        let mut fields = form.with(set);
        if !name.is_empty() {
            fields.push((name, value));
        }
        self.browser.post(&form.action, &fields, &self.origin).await
    }

    /// Presses a button that asks once more, and confirms on the page in between.
    pub(crate) async fn press_and_confirm(&self, path: &str, name: &str, value: &str) -> Answer {
        let answer = self.press(path, name, value).await;
        self.confirm(&answer, name, value).await
    }

    /// Presses the same button on the page in between, where this answer leads.
    pub(crate) async fn confirm(&self, answer: &Answer, name: &str, value: &str) -> Answer {
        let path = answer.location().strip_prefix(&self.origin).unwrap().to_owned();
        assert!(path.contains("/confirm"), "{path} is no page in between");
        self.press(&path, name, value).await
    }

    /// Sends a form past the pages.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.browser.post(&self.at(path), fields, &self.origin).await
    }

    /// What forms of this session carry.
    pub(crate) async fn csrf(&self) -> String {
        let page = self.page(self.home).await;
        let input = Regex::new(r#"name="csrf" value="([^"]+)""#).unwrap();
        unescape(&input.captures(&page).unwrap()[1])
    }
}

/// Every form of a page, with its HTML.
pub(crate) fn forms(html: &str, page_url: &str) -> Vec<(Form, String)> {
    let pattern = Regex::new(r"(?s)<form[^>]*>.*?</form>").unwrap();
    pattern
        .find_iter(html)
        .map(|form| (Form::in_html(form.as_str(), page_url), form.as_str().to_owned()))
        .collect()
}

fn has_button(form: &str, name: &str, value: &str) -> bool {
    let pattern = Regex::new(r"(?s)<button[^>]*>").unwrap();
    pattern.find_iter(form).any(|button| {
        attribute(button.as_str(), "name").unwrap_or_default() == name
            && attribute(button.as_str(), "value").unwrap_or_default() == value
    })
}

/// A query for a path.
pub(crate) fn with_query(path: &str, params: &[(&str, &str)]) -> String {
    format!("{path}?{}", encode(params))
}
