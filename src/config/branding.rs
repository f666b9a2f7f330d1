//! How the pages of people look: name, logo, accent colour and links of the organisation that runs this server.
//! The admin pages keep our own look.

mod accent;
mod logo;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::tz::TimeZone;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

pub(super) use accent::Accent;
pub(super) use logo::check;

use super::paths;

/// Largest logo, in bytes: 64 KiB.
pub(super) const LARGEST_LOGO: u64 = 64 << 10;
/// Longest name, in characters. The header of a phone has room for it.
pub(super) const LONGEST_NAME: usize = 40;
/// The name if none is configured.
const OUR_NAME: &str = "Portcullis";

/// No branding: our own name, icon and colours.
pub static UNBRANDED: Branding = Branding {
    name: None,
    logo: None,
    style: String::new(),
    support: None,
    terms: None,
    privacy: None,
    timezone: None,
};

/// The look of the pages of people.
#[derive(Clone, Debug)]
pub struct Branding {
    pub name: Option<String>,
    pub logo: Option<Logo>,
    /// Style rules that set the accent colour; empty if none is configured. Made of hexadecimal digits only.
    pub style: String,
    pub support: Option<BrandLink>,
    pub terms: Option<BrandLink>,
    pub privacy: Option<BrandLink>,
    /// The zone in which people read times; UTC without one.
    pub timezone: Option<TimeZone>,
}

impl Branding {
    /// Returns the name for the header and the title of a page.
    pub fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or(OUR_NAME)
    }

    /// Returns the path and query of the icon in the browser's tab: the logo, or ours.
    pub fn icon(&self) -> &str {
        self.logo.as_ref().map_or(paths::ICON, |logo| &logo.path)
    }

    /// Returns whether pages end with links.
    pub fn has_links(&self) -> bool {
        self.support.is_some() || self.terms.is_some() || self.privacy.is_some()
    }

    /// Returns whether a page differs from one without branding in what its Content-Security-Policy must
    /// allow.
    pub fn changes_policy(&self) -> bool {
        !self.style.is_empty()
    }
}

#[derive(Clone, Debug)]
pub struct Logo {
    pub media_type: &'static str,
    pub bytes: Bytes,
    /// Path and query under which we serve it. The query changes with the file, so that browsers may keep it.
    pub path: String,
}

impl Logo {
    /// Wraps a file that passed [`check`].
    pub(super) fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let version = URL_SAFE_NO_PAD.encode(hash.as_ref().get(..9).unwrap_or_default());
        Self { media_type, bytes: bytes.into(), path: format!("{}?v={version}", paths::LOGO) }
    }
}

/// A link of the organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrandLink {
    /// `https:` or `mailto:`. Without a reference.
    pub href: String,
    /// What people read: without the scheme.
    pub shown: String,
    /// What is before and after the reference in the link of a page that shows one.
    reference: Option<(String, String)>,
}

/// Where the URL of `branding.support` has the reference.
const REFERENCE: &str = "{reference}";
/// Takes its place while the URL is parsed. It is made of characters that no URL changes.
const MARK: &str = "0portcullis0reference0";

impl BrandLink {
    /// Parses an https URL.
    pub(super) fn website(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let plain = url.scheme() == "https"
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return None;
        }
        let href = String::from(url);
        let shown = href.trim_start_matches("https://").trim_end_matches('/').to_owned();
        Some(Self { href, shown, reference: None })
    }

    /// Parses an https URL that may have `{reference}` once, in its path, query or fragment.
    fn website_with_reference(text: &str) -> Option<Self> {
        let Some((before, after)) = text.split_once(REFERENCE) else { return Self::website(text) };
        if after.contains(REFERENCE) {
            return None;
        }
        let Self { href, .. } = Self::website(&format!("{before}{MARK}{after}"))?;
        let (before, after) = href.split_once(MARK)?;
        let host = Url::parse(before).ok()?.host_str()?.to_owned();
        // In the host the reference would choose whose page it is.
        let beyond_host = before.strip_prefix("https://")?.contains('/');
        beyond_host.then(|| Self {
            href: format!("{before}{after}"),
            shown: host,
            reference: Some((before.to_owned(), after.to_owned())),
        })
    }

    /// Returns the link of a page that shows this reference: an e-mail gets it as its subject, and a URL where it
    /// has `{reference}`.
    #[must_use]
    pub fn about(&self, reference: &str) -> Self {
        let mut link = self.clone();
        if let Some((before, after)) = &self.reference {
            let reference = utf8_percent_encode(reference, NON_ALPHANUMERIC);
            link.href = format!("{before}{reference}{after}");
        }
        link
    }

    /// Parses an https URL, a `mailto:` URL or an e-mail address.
    pub(super) fn website_or_email(text: &str) -> Option<Self> {
        if let Some(website) = Self::website_with_reference(text) {
            return Some(website);
        }
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        let (name, host) = address.split_once('@')?;
        let legal = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
            !part.is_empty() && part.chars().all(known)
        };
        (legal(name) && legal(host)).then(|| {
            let href = format!("mailto:{address}");
            let reference = Some((format!("{href}?subject="), String::new()));
            Self { href, shown: address.to_owned(), reference }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_https_or_mail_and_nothing_else() {
        let website = BrandLink::website("https://help.acme.com/").unwrap();
        assert_eq!(
            (website.href.as_str(), website.shown.as_str()),
            ("https://help.acme.com/", "help.acme.com")
        );
        for mail in ["it-help@acme.com", "mailto:it-help@acme.com"] {
            let mail = BrandLink::website_or_email(mail).unwrap();
            assert_eq!(mail.href, "mailto:it-help@acme.com");
            assert_eq!(mail.shown, "it-help@acme.com");
        }
        for hostile in [
            "javascript:alert(1)//@acme.com",
            "data:text/html,x",
            "http://help.acme.com",
            "https://user:password@acme.com",
            "mailto:a@b?bcc=everybody@acme.com",
            "a@b@c",
            "@acme.com",
            "help me",
            "",
        ] {
            assert_eq!(BrandLink::website_or_email(hostile), None, "{hostile}");
        }
        assert_eq!(BrandLink::website("it-help@acme.com"), None);
    }

    #[test]
    fn a_reference_is_filled_in_where_the_link_has_a_place_for_it() {
        let filled = |text: &str, reference: &str| {
            let link = BrandLink::website_or_email(text).unwrap();
            (link.href.clone(), link.shown.clone(), link.about(reference).href)
        };
        let (plain, shown, about) = filled("it-help@acme.com", "AB12-CD34");
        assert_eq!(plain, "mailto:it-help@acme.com");
        assert_eq!(shown, "it-help@acme.com");
        assert_eq!(about, "mailto:it-help@acme.com?subject=AB12%2DCD34");
        let (plain, shown, about) =
            filled("https://help.acme.com/new?ref={reference}&from=mcp", "AB12");
        assert_eq!(plain, "https://help.acme.com/new?ref=&from=mcp");
        assert_eq!(shown, "help.acme.com");
        assert_eq!(about, "https://help.acme.com/new?ref=AB12&from=mcp");
        let (.., about) = filled("https://help.acme.com/r/{reference}", "\"><b>&a=b/../");
        assert_eq!(about, "https://help.acme.com/r/%22%3E%3Cb%3E%26a%3Db%2F%2E%2E%2F");
        let (.., about) = filled("https://help.acme.com/", "AB12");
        assert_eq!(about, "https://help.acme.com/");
        for hostile in [
            "https://{reference}.acme.com/",
            "https://acme.com{reference}",
            "https://acme.com:{reference}/",
            "https://{reference}@acme.com/",
            "http://acme.com/{reference}",
            "https://acme.com/{reference}?again={reference}",
            "mailto:{reference}@acme.com",
            "javascript:{reference}",
        ] {
            assert_eq!(BrandLink::website_or_email(hostile), None, "{hostile}");
        }
    }
}
