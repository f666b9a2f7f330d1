//! Reads `[branding]`: the look of the pages of people.

use jiff::tz::TimeZone;

use super::super::Branding;
use super::super::branding::{Accent, BrandLink, LARGEST_LOGO, LONGEST_NAME, Logo, check};
use super::super::reader::ConfigReader;

pub(super) fn read(r: &mut ConfigReader) -> Branding {
    let name = name(r);
    let logo = logo(r);
    if logo.is_some() && name.is_none() {
        let hint = "add name = \"…\": people who do not see the logo read it";
        r.problem("branding.logo", None, "is set without branding.name", hint);
    }
    let style = accent(r).map(Accent::style).unwrap_or_default();
    let support = link(
        r,
        "branding.support",
        BrandLink::website_or_email,
        "write an https URL, which may have {reference} once after its host, or an e-mail address",
    );
    let mut website = |key| {
        link(r, key, BrandLink::website, "write an https URL, such as \"https://acme.com/privacy\"")
    };
    let (terms, privacy) = (website("branding.terms"), website("branding.privacy"));
    let timezone = timezone(r);
    Branding { name, logo, style, support, terms, privacy, timezone }
}

fn name(r: &mut ConfigReader) -> Option<String> {
    const KEY: &str = "branding.name";
    let name = r.text(KEY)?;
    let legal = !name.trim().is_empty()
        && name.chars().count() <= LONGEST_NAME
        && !name.chars().any(char::is_control);
    if !legal {
        let reason = format!("is not a name of 1 to {LONGEST_NAME} characters");
        r.problem(KEY, Some(format!("{name:?}")), reason, "write the name that people know");
        return None;
    }
    Some(name)
}

fn accent(r: &mut ConfigReader) -> Option<Accent> {
    const KEY: &str = "branding.accent";
    let text = r.text(KEY)?;
    let accent = Accent::parse(&text);
    if accent.is_none() {
        let hint = "write it like \"#1f4fd1\"";
        r.problem(KEY, Some(format!("{text:?}")), "is not a colour", hint);
    }
    accent
}

fn timezone(r: &mut ConfigReader) -> Option<TimeZone> {
    const KEY: &str = "branding.timezone";
    let name = r.text(KEY)?;
    let zone = TimeZone::get(&name).ok();
    if zone.is_none() {
        let hint = "write a name of the IANA database, such as \"Europe/Berlin\" or \"Asia/Tokyo\"";
        r.problem(KEY, Some(format!("{name:?}")), "is not a time zone", hint);
    }
    zone
}

fn logo(r: &mut ConfigReader) -> Option<Logo> {
    const KEY: &str = "branding.logo";
    let path = r.text(KEY)?;
    let bytes = r.file(KEY, &path, LARGEST_LOGO)?;
    match check(&bytes) {
        Ok(media_type) => Some(Logo::new(media_type, bytes)),
        Err(reason) => {
            let hint = "export the drawing as plain SVG, or as PNG";
            r.problem(KEY, Some(format!("{path:?}")), reason, hint);
            None
        }
    }
}

fn link(
    r: &mut ConfigReader,
    key: &str,
    parse: fn(&str) -> Option<BrandLink>,
    hint: &str,
) -> Option<BrandLink> {
    let text = r.text(key)?;
    let link = parse(&text);
    if link.is_none() {
        r.problem(key, Some(format!("{text:?}")), "is not a link that pages may carry", hint);
    }
    link
}
