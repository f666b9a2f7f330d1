//! The accent colour. Any colour may be configured; what the pages show is changed until it can be read (WCAG
//! 2.1, success criterion 1.4.3).

use std::fmt;

/// Least contrast between text and its ground (WCAG 2.1, 1.4.3).
const READABLE: f64 = 4.5;
const BLACK: Color = Color([0, 0, 0]);
const WHITE: Color = Color([0xff, 0xff, 0xff]);
/// `--ground` and `--card` of `templates/style.css`.
const LIGHT: [Color; 2] = [Color([0xf3, 0xf4, 0xf7]), WHITE];
/// The same in the dark.
const DARK: [Color; 2] = [Color([0x10, 0x13, 0x19]), Color([0x18, 0x1c, 0x25])];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Color([u8; 3]);

/// The accent colour as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Accent(Color);

/// The colours of one scheme.
#[derive(Clone, Copy, Debug)]
struct Scheme {
    /// Links, borders, and the ground of the main button.
    accent: Color,
    /// Text of the main button.
    ink: Color,
    /// Ground with a tint of the accent.
    mark: Color,
}

impl Accent {
    /// Parses `#1f4fd1` or `#14d`.
    pub(in super::super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let digits: String = match digits.len() {
            3 => digits.chars().flat_map(|digit| [digit, digit]).collect(),
            6 => digits.to_owned(),
            _ => return None,
        };
        let [_, red, green, blue] = u32::from_str_radix(&digits, 16).ok()?.to_be_bytes();
        Some(Self(Color([red, green, blue])))
    }

    /// Returns the rules that replace the colours of the style sheet.
    pub(in super::super) fn style(self) -> String {
        let Scheme { accent, ink, mark } = self.light();
        let light = format!("--accent: {accent}; --accent-ink: {ink}; --mark: {mark};");
        let Scheme { accent, ink, mark } = self.dark();
        let dark = format!("--accent: {accent}; --accent-ink: {ink}; --mark: {mark};");
        format!(":root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}")
    }

    fn light(self) -> Scheme {
        let [ground, card] = LIGHT;
        let mark = card.mixed(self.0, 8);
        Scheme { accent: self.0.readable(BLACK, &[ground, card, mark]), ink: WHITE, mark }
    }

    fn dark(self) -> Scheme {
        let [ground, card] = DARK;
        let mark = card.mixed(self.0, 12);
        Scheme { accent: self.0.readable(WHITE, &[ground, card, mark]), ink: BLACK, mark }
    }
}

impl Color {
    /// Returns this colour, moved towards `end` by as little as makes it readable on all grounds.
    fn readable(self, end: Self, grounds: &[Self]) -> Self {
        let is_readable =
            |color: &Self| grounds.iter().all(|ground| color.contrast(*ground) >= READABLE);
        (0..=100).map(|percent| self.mixed(end, percent)).find(is_readable).unwrap_or(end)
    }

    /// Returns a mixture with `percent` of the other colour.
    fn mixed(self, other: Self, percent: u16) -> Self {
        let mix = |one: u8, other: u8| {
            let sum = u16::from(one) * (100 - percent) + u16::from(other) * percent;
            u8::try_from(sum / 100).unwrap_or(u8::MAX)
        };
        let ([red, green, blue], [to_red, to_green, to_blue]) = (self.0, other.0);
        Self([mix(red, to_red), mix(green, to_green), mix(blue, to_blue)])
    }

    /// Returns the contrast ratio, from 1 to 21.
    fn contrast(self, other: Self) -> f64 {
        let (one, other) = (self.luminance(), other.luminance());
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    /// Returns the relative luminance, from 0 to 1.
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let channel = f64::from(channel) / 255.0;
            if channel <= 0.040_45 {
                channel / 12.92
            } else {
                ((channel + 0.055) / 1.055).powf(2.4)
            }
        };
        let [red, green, blue] = self.0;
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn color(text: &str) -> Color {
        Accent::parse(text).unwrap().0
    }

    #[test]
    fn only_hexadecimal_colours_are_colours() {
        assert_eq!(Accent::parse("#14d"), Accent::parse("#1144dd"));
        for hostile in [
            "",
            "#",
            "red",
            "1f4fd1",
            "#1f4fd",
            "#1f4fd1ff",
            "#+f4fd1",
            "#-14",
            "#1f4fd1;",
            "#１２３",
            "#éa",
            "url(#x)",
            "#fff}*{display:none}",
        ] {
            assert_eq!(Accent::parse(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn contrast_is_that_of_wcag() {
        assert!((BLACK.contrast(WHITE) - 21.0).abs() < 0.001);
        assert!((color("#777777").contrast(WHITE) - 4.478).abs() < 0.001);
        assert!((WHITE.contrast(WHITE) - 1.0).abs() < 0.001);
    }

    /// White on white, black on black, the grounds themselves, and every step of a coarse colour cube.
    #[test]
    fn every_accent_can_be_read_in_both_schemes() {
        let steps: &[u8] = &[0x00, 0x18, 0x33, 0x66, 0x80, 0x99, 0xcc, 0xe8, 0xff];
        let cube = steps.iter().flat_map(|red| {
            steps.iter().flat_map(move |green| steps.iter().map(move |blue| [*red, *green, *blue]))
        });
        let grounds = LIGHT.into_iter().chain(DARK).map(|ground| ground.0);
        for one in cube.chain(grounds).map(Color) {
            for (scheme, grounds, ink, soft) in [
                (Accent(one).light(), LIGHT, "#191d26", "#565e6e"),
                (Accent(one).dark(), DARK, "#e9ecf2", "#a3acbd"),
            ] {
                let Scheme { accent, ink: on_button, mark } = scheme;
                for ground in grounds.into_iter().chain([mark]) {
                    assert!(accent.contrast(ground) >= READABLE, "{one}: {accent} on {ground}");
                    for text in [color(ink), color(soft)] {
                        assert!(text.contrast(ground) >= READABLE, "{one}: {text} on {ground}");
                    }
                }
                assert!(on_button.contrast(accent) >= READABLE, "{one}: {on_button} on {accent}");
            }
        }
    }

    #[test]
    fn an_accent_that_can_be_read_stays_as_it_is() {
        let accent = Accent::parse("#1f4fd1").unwrap();
        assert_eq!(accent.light().accent, accent.0);
        assert!(accent.style().starts_with(":root { --accent: #1f4fd1; --accent-ink: #ffffff;"));
        let style = Accent::parse("#ffff00").unwrap().style();
        assert!(!style.contains('<') && style.contains("@media (prefers-color-scheme: dark)"));
    }

    /// The grounds above are those of the style sheet.
    #[test]
    fn the_style_sheet_has_these_grounds() {
        let style = include_str!("../../../templates/style.css");
        let (light, dark) = style.split_once("@media").unwrap();
        for (scheme, [ground, card]) in [(light, LIGHT), (dark, DARK)] {
            assert!(scheme.contains(&format!("--ground: {ground}; --card: {card};")), "{scheme}");
        }
    }
}
