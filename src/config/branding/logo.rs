//! Checks a logo before it is served to everybody: an SVG is a document that may carry scripts and addresses of
//! others. What is served has a Content-Security-Policy of its own besides.

/// Largest width and height of a PNG.
const LARGEST_SIDE: u32 = 2048;
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Elements of a drawing. Scripts, styles, links, images, animations and foreign content are not among them.
const ELEMENTS: &[&str] = &[
    "svg",
    "g",
    "defs",
    "symbol",
    "use",
    "title",
    "desc",
    "metadata",
    "path",
    "rect",
    "circle",
    "ellipse",
    "line",
    "polyline",
    "polygon",
    "text",
    "tspan",
    "linearGradient",
    "radialGradient",
    "stop",
    "clipPath",
    "mask",
    "pattern",
];

/// Returns the media type of a file that is a PNG or a harmless SVG, or what is wrong with it.
pub(in super::super) fn check(bytes: &[u8]) -> Result<&'static str, String> {
    if bytes.starts_with(PNG_SIGNATURE) {
        check_png(bytes).ok_or_else(|| {
            format!("is a damaged PNG, or one with more than {LARGEST_SIDE} pixels a side")
        })?;
        return Ok("image/png");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is neither an SVG nor a PNG".to_owned())?;
    check_svg(text).map(|()| "image/svg+xml")
}

/// Returns `None` unless the chunks follow one another from the header to the end of the file.
fn check_png(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.strip_prefix(PNG_SIGNATURE)?;
    let mut is_first = true;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let (data, after) = after.split_at_checked(length)?;
        let (_checksum, after) = after.split_first_chunk::<4>()?;
        rest = after;
        if is_first {
            let (width, height) = data.split_first_chunk::<4>()?;
            let height = height.first_chunk::<4>()?;
            let legal = |side: &[u8; 4]| (1..=LARGEST_SIDE).contains(&u32::from_be_bytes(*side));
            if kind != b"IHDR" || !legal(width) || !legal(height) {
                return None;
            }
        }
        is_first = false;
        if kind == b"IEND" {
            return rest.is_empty().then_some(());
        }
    }
}

fn check_svg(text: &str) -> Result<(), String> {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    if let Some(declaration) = rest.strip_prefix("<?xml ") {
        rest = declaration.split_once("?>").ok_or("has an XML declaration without an end")?.1;
    }
    let mut is_root = true;
    while let Some((_, after)) = rest.split_once('<') {
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").ok_or("has a comment without an end")?.1;
            continue;
        }
        if after.starts_with(['!', '?']) {
            return Err("has a DOCTYPE, a CDATA section or an instruction".to_owned());
        }
        let (tag, after) = split_tag(after).ok_or("has a tag without an end")?;
        rest = after;
        if tag.starts_with('/') {
            continue;
        }
        let end = tag.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(tag.len());
        let (element, attributes) = tag.split_at(end);
        if is_root && element != "svg" {
            return Err("is neither an SVG nor a PNG".to_owned());
        }
        is_root = false;
        if !ELEMENTS.contains(&element) {
            let element: String = element.chars().take(40).collect();
            return Err(format!("has the element <{element}>"));
        }
        check_attributes(attributes)?;
    }
    if is_root { Err("is neither an SVG nor a PNG".to_owned()) } else { Ok(()) }
}

/// Splits at the end of a tag, which is the first `>` outside quotes.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return Some((text.get(..at)?, text.get(at + 1..)?)),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn check_attributes(text: &str) -> Result<(), String> {
    let mut rest = text.trim().trim_end_matches('/').trim_end();
    while !rest.is_empty() {
        let malformed = "has an attribute that is not name=\"value\"";
        let (name, after) = rest.split_once('=').ok_or(malformed)?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(malformed)?;
        let (value, after) =
            after.strip_prefix(quote).and_then(|v| v.split_once(quote)).ok_or(malformed)?;
        rest = after.trim_start();
        let name = name.trim().to_ascii_lowercase();
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(known) {
            return Err(malformed.to_owned());
        }
        if !is_harmless(&name, value) {
            let name: String = name.chars().take(40).collect();
            return Err(format!("has the attribute {name} with a value that is not allowed"));
        }
    }
    Ok(())
}

/// Returns whether an attribute runs nothing and loads nothing from elsewhere.
fn is_harmless(name: &str, value: &str) -> bool {
    if name == "xmlns" {
        return value == "http://www.w3.org/2000/svg";
    }
    let local = name.rsplit(':').next().unwrap_or(name);
    let value = value.to_ascii_lowercase();
    let within = |start: &str| start.trim_start_matches(['"', '\'', ' ']).starts_with('#');
    !local.starts_with("on")
        && local != "base"
        && (local != "href" || value.starts_with('#'))
        && value.split("url(").skip(1).all(within)
        && !value.contains("script:")
        && !value.contains("&#")
        && !value.contains(['\\', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(inner: &str) -> String {
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 24 24\">{inner}</svg>")
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = PNG_SIGNATURE.to_vec();
        bytes.extend([0, 0, 0, 13]);
        bytes.extend(b"IHDR");
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend([8, 6, 0, 0, 0, 0, 0, 0, 0]); // the rest of the header, and its checksum
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(b"IEND");
        bytes.extend([0xae, 0x42, 0x60, 0x82]);
        bytes
    }

    #[test]
    fn drawings_are_accepted() {
        for inner in [
            "<path d='M0 0h24v24z' fill=\"#1f4fd1\"/>",
            "<defs><linearGradient id=\"a\"><stop offset=\"0\"/></linearGradient></defs><rect fill=\"url(#a)\"/>",
            "<!-- a > b --><g style=\"fill:none;stroke:#000\"><use xlink:href=\"#a\" /></g>",
            "<title>Acme &amp; Sons</title>",
        ] {
            assert_eq!(check(svg(inner).as_bytes()), Ok("image/svg+xml"), "{inner}");
        }
        let declared = format!("\u{feff}<?xml version=\"1.0\"?>\n{}", svg(""));
        assert_eq!(check(declared.as_bytes()), Ok("image/svg+xml"));
        assert_eq!(check(&png(64, 64)), Ok("image/png"));
    }

    #[test]
    fn what_runs_or_loads_something_is_refused() {
        for inner in [
            "<script>alert(1)</script>",
            "<SCRIPT/>",
            "<x:script xmlns:x='http://www.w3.org/2000/svg'>alert(1)</x:script>",
            "<style>@import url(https://evil.example)</style>",
            "<foreignObject><iframe src='https://evil.example'/></foreignObject>",
            "<image href='https://evil.example/x.png'/>",
            "<a href='javascript:alert(1)'><path/></a>",
            "<animate attributeName='href' to='javascript:alert(1)'/>",
            "<path onload=\"alert(1)\"/>",
            "<path ONLOAD = 'alert(1)'/>",
            "<path/onload='alert(1)'/>",
            "<path d=\">\" onload='alert(1)'/>",
            "<path onload=alert(1) />",
            "<use href='https://evil.example/x.svg#a'/>",
            "<use xlink:href='data:image/svg+xml,x'/>",
            "<rect fill='url(https://evil.example)'/>",
            "<rect style='fill:u\\72l(https://evil.example)'/>",
            "<rect style='&#117;rl(x)'/>",
            "<g xml:base='https://evil.example/'/>",
            "<![CDATA[<script>]]>",
            "<?xml-stylesheet href='https://evil.example'?>",
            "<!-- ",
            "<path d='",
        ] {
            assert!(check(svg(inner).as_bytes()).is_err(), "{inner}");
        }
        let entity = "<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>";
        for not_svg in
            [entity, "<html></html>", "", "GIF89a", "<svg xmlns='http://www.w3.org/1999/xhtml'/>"]
        {
            assert!(check(not_svg.as_bytes()).is_err(), "{not_svg}");
        }
    }

    #[test]
    fn damaged_and_huge_pngs_are_refused() {
        for (width, height) in [(0, 1), (1, 0), (4096, 1), (1, u32::MAX)] {
            assert!(check(&png(width, height)).is_err(), "{width} × {height}");
        }
        let whole = png(64, 64);
        for end in 0..whole.len() {
            assert!(check(&whole[..end]).is_err(), "cut at {end}");
        }
        let mut followed = whole;
        followed.extend(b"<script>");
        assert!(check(&followed).is_err());
    }
}
