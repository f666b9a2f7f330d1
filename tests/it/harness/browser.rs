//! A browser: a cookie jar, forms, and what browsers say of themselves. Redirects are followed by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use regex_lite::Regex;
use url::Url;

use super::http::{Answer, Http};

#[derive(Clone, Default)]
pub(crate) struct Browser {
    http: Http,
    cookies: Arc<Mutex<BTreeMap<(String, String), Kept>>>,
    /// Everything it was answered, with the URL that it asked for.
    seen: Arc<Mutex<Vec<(String, Answer)>>>,
}

/// A cookie of the jar, and for how many seconds it is kept where it says so.
struct Kept {
    value: String,
    seconds: Option<i64>,
}

impl Browser {
    /// A browser that reaches the world in this way.
    pub(crate) fn through(http: Http) -> Self {
        Self { http, ..Self::default() }
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[("accept", "text/html")], "").await
    }

    /// Goes there in a tab, and says so as today's browsers do.
    pub(crate) async fn go(&self, url: &str) -> Answer {
        let headers = [
            ("accept", "text/html"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        self.send("GET", url, &headers, "").await
    }

    /// Sends a form as the page at `from` would.
    pub(crate) async fn post(&self, url: &str, form: &[(&str, &str)], from: &str) -> Answer {
        let origin = Url::parse(from).unwrap().origin().ascii_serialization();
        let same = Url::parse(url).unwrap().origin().ascii_serialization() == origin;
        let site = if same { "same-origin" } else { "cross-site" };
        let headers = [
            ("accept", "text/html"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", origin.as_str()),
            ("sec-fetch-site", site),
        ];
        self.send("POST", url, &headers, &super::http::encode(form)).await
    }

    /// Presses the button of a language on the page at `from`.
    pub(crate) async fn choose_language(&self, server: &str, tag: &str, from: &str) -> Answer {
        let origin = Url::parse(server).unwrap().origin().ascii_serialization();
        let mut headers = vec![
            ("accept", "text/html"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        if !from.is_empty() {
            headers.push(("referer", from));
        }
        let body = super::http::encode(&[("language", tag)]);
        self.send("POST", &format!("{server}/account/language"), &headers, &body).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let parsed = Url::parse(url).unwrap();
        let host = parsed.host_str().unwrap().to_owned();
        let cookies = self.cookie_header(&host);
        let mut all = headers.to_vec();
        if !cookies.is_empty() {
            all.push(("cookie", &cookies));
        }
        let answer = self.http.send(method, url, &all, body.to_owned()).await;
        let mut jar = self.cookies.lock().unwrap();
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            let (name, rest) = set.split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap_or((rest, ""));
            let key = (host.clone(), name.to_owned());
            if attributes.contains("Max-Age=0") {
                jar.remove(&key);
            } else {
                let seconds = attributes.split("Max-Age=").nth(1);
                let seconds = seconds.map(|rest| rest.split(';').next().unwrap().parse().unwrap());
                jar.insert(key, Kept { value: value.to_owned(), seconds });
            }
        }
        drop(jar);
        self.seen.lock().unwrap().push((url.to_owned(), answer.clone()));
        answer
    }

    /// Everything it was answered so far, with the URL that it asked for.
    pub(crate) fn seen(&self) -> Vec<(String, Answer)> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn cookie_header(&self, host: &str) -> String {
        let jar = self.cookies.lock().unwrap();
        let pairs: Vec<String> = jar
            .iter()
            .filter(|((known, _), _)| known == host)
            .map(|((_, name), kept)| format!("{name}={}", kept.value))
            .collect();
        pairs.join("; ")
    }

    /// Names of the cookies it holds.
    pub(crate) fn cookie_names(&self) -> Vec<String> {
        self.cookies.lock().unwrap().keys().map(|(_, name)| name.clone()).collect()
    }

    /// Time passes for this browser: cookies that are kept for no longer are dropped.
    pub(crate) fn let_pass(&self, passed: i64) {
        self.cookies.lock().unwrap().retain(|_, kept| {
            kept.seconds = kept.seconds.map(|seconds| seconds - passed);
            kept.seconds.is_none_or(|seconds| seconds > 0)
        });
    }

    /// Forgets all cookies whose name contains `part`.
    pub(crate) fn forget(&self, part: &str) {
        self.cookies.lock().unwrap().retain(|(_, name), _| !name.contains(part));
    }
}

/// A form of a page: where it goes and what its fields hold.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub action: String,
    pub fields: Vec<(String, String)>,
}

impl Form {
    /// The only form of a page that stands at `page_url`.
    pub(crate) fn of(answer: &Answer, page_url: &str) -> Self {
        let html = answer.text();
        let form = Regex::new(r"(?s)<form[^>]*>.*?</form>").unwrap();
        let form = form.find(html).unwrap_or_else(|| panic!("no form in {html}")).as_str();
        Self::in_html(form, page_url)
    }

    /// The form that this HTML is.
    pub(crate) fn in_html(form: &str, page_url: &str) -> Self {
        let head = form.split('>').next().unwrap();
        let action = attribute(head, "action").unwrap_or_default();
        let action = Url::parse(page_url).unwrap().join(&action).unwrap().to_string();
        let input = Regex::new(r"(?s)<input[^>]*>").unwrap();
        let fields = input
            .find_iter(form)
            .filter_map(|input| {
                let input = input.as_str();
                Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default()))
            })
            .collect();
        Self { action, fields }
    }

    /// The fields, with some set or added.
    pub(crate) fn with<'a>(&'a self, set: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut fields: Vec<(&str, &str)> = self
            .fields
            .iter()
            .filter(|(name, _)| !set.iter().any(|(known, _)| known == name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        fields.extend_from_slice(set);
        fields
    }
}

pub(crate) fn attribute(tag: &str, name: &str) -> Option<String> {
    let pattern = Regex::new(&format!(r#"(?s)\s{name}\s*=\s*"([^"]*)""#)).unwrap();
    pattern.captures(tag).map(|captures| unescape(&captures[1]))
}

pub(crate) fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&lt;", "<")
        .replace("&#60;", "<")
        .replace("&gt;", ">")
        .replace("&#62;", ">")
        .replace("&amp;", "&")
        .replace("&#38;", "&")
}
