//! The languages of the pages, and the texts of administrators in two of them. The texts of the pages that all
//! people see are in `locales/` ([`super::locales`]).

/// Declares a struct of texts in English and Japanese, for the administrators' pages. A missing one does not
/// compile. In any other language they are English.
macro_rules! words {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($field:ident: $en:literal, $ja:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name { $(pub(crate) $field: &'static str,)* }

        impl $name {
            /// Returns the texts in `language`.
            $vis fn of(language: $crate::web::words::Language) -> &'static Self {
                static EN: $name = $name { $($field: $en,)* };
                static JA: $name = $name { $($field: $ja,)* };
                match language {
                    $crate::web::words::Language::Japanese => &JA,
                    _ => &EN,
                }
            }
        }
    };
}
pub(crate) use words;

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English, also the default when no language matches.
    English,
    Japanese,
    German,
    French,
    Spanish,
    SimplifiedChinese,
}

impl Language {
    /// All languages, in the order in which a person chooses among them.
    pub const ALL: [Self; 6] = [
        Self::English,
        Self::German,
        Self::Spanish,
        Self::French,
        Self::Japanese,
        Self::SimplifiedChinese,
    ];

    /// The languages of the administrators' pages.
    pub const OF_ADMINISTRATORS: [Self; 2] = [Self::English, Self::Japanese];

    /// Returns the language tag (BCP 47), for `lang` and `Content-Language`. The file in `locales/` has the same
    /// name.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Japanese => "ja",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::SimplifiedChinese => "zh-Hans",
        }
    }

    /// Returns the name of the language in the language itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Japanese => "日本語",
            Self::German => "Deutsch",
            Self::French => "Français",
            Self::Spanish => "Español",
            Self::SimplifiedChinese => "简体中文",
        }
    }

    /// Returns the language with exactly this tag.
    pub fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == tag)
    }

    /// Returns the one of these languages that an `Accept-Language` header prefers (RFC 9110 §12.5.4).
    pub fn from_accept_language(header: Option<&str>, among: &[Self]) -> Self {
        let mut best = (0, Self::English);
        for range in header.unwrap_or_default().split(',') {
            let (tag, weight) = range.split_once(';').unwrap_or((range, ""));
            let language = Self::of_range(tag.trim()).filter(|language| among.contains(language));
            let Some(language) = language else { continue };
            let weight = thousandths(weight);
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    /// Returns the language of a language range such as `de-AT`.
    fn of_range(range: &str) -> Option<Self> {
        let range = range.to_ascii_lowercase();
        let mut subtags = range.split('-');
        match subtags.next()? {
            "en" => Some(Self::English),
            "ja" => Some(Self::Japanese),
            "de" => Some(Self::German),
            "fr" => Some(Self::French),
            "es" => Some(Self::Spanish),
            "zh" => {
                // A range of traditional characters does not ask for simplified ones. A reader who takes both
                // says so with `zh`, as browsers do.
                let traditional = |subtag: &str| matches!(subtag, "hant" | "tw" | "hk" | "mo");
                match subtags.find(|&subtag| subtag == "hans" || traditional(subtag)) {
                    None | Some("hans") => Some(Self::SimplifiedChinese),
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }
}

/// Parses a quality value in thousandths: `q=0.8` is 800, an absent one is 1000, and an unreadable one is 0.
fn thousandths(parameter: &str) -> u16 {
    let parameter = parameter.trim();
    if parameter.is_empty() {
        return 1000;
    }
    let number = parameter.strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
    match number {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        Some(q) if (0.0..=1.0).contains(&q) => (q * 1000.0) as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_language_is_chosen() {
        let cases = [
            (None, Language::English),
            (Some(""), Language::English),
            (Some("ja"), Language::Japanese),
            (Some("ja-JP,ja;q=0.9,en;q=0.8"), Language::Japanese),
            (Some("en-US,en;q=0.9,ja;q=0.8"), Language::English),
            (Some("en;q=0.1, ja;q=0.2"), Language::Japanese),
            (Some("de-AT,de;q=0.9,en;q=0.8"), Language::German),
            (Some("DE"), Language::German),
            (Some("fr-CA, en;q=0.9"), Language::French),
            (Some("es-419,es;q=0.9,en;q=0.5"), Language::Spanish),
            (Some("pt-BR,pt;q=0.9,es;q=0.8"), Language::Spanish),
            (Some("zh-CN,zh;q=0.9,en;q=0.8"), Language::SimplifiedChinese),
            (Some("zh"), Language::SimplifiedChinese),
            (Some("zh-Hans-HK"), Language::SimplifiedChinese),
            (Some("zh-SG"), Language::SimplifiedChinese),
            (Some("zh-TW, en;q=0.5"), Language::English),
            (Some("zh-Hant-CN"), Language::English),
            (Some("zh-TW,zh;q=0.9,en-US;q=0.8"), Language::SimplifiedChinese),
            (Some("fr;q=0.8, de;q=0.8"), Language::French),
            (Some("ko-KR, ja;q=0"), Language::English),
            (Some("pt, *;q=0.5"), Language::English),
            (Some("ja;q=broken, en;q=0.1"), Language::English),
            (Some("deutsch, eng, frankly"), Language::English),
            (Some(";;;,,,q="), Language::English),
        ];
        for (header, language) in cases {
            let chosen = Language::from_accept_language(header, &Language::ALL);
            assert_eq!(chosen, language, "{header:?}");
        }
    }

    #[test]
    fn administrators_get_one_of_their_languages() {
        let cases = [
            ("de, ja;q=0.5, en;q=0.3", Language::Japanese),
            ("zh-CN, zh;q=0.9", Language::English),
            ("fr, en;q=0.5", Language::English),
        ];
        for (header, language) in cases {
            let among = &Language::OF_ADMINISTRATORS;
            assert_eq!(Language::from_accept_language(Some(header), among), language, "{header}");
        }
    }

    #[test]
    fn texts_can_be_configured_in_the_languages_of_the_pages() {
        let mut ours = Language::ALL.map(Language::tag);
        ours.sort_unstable();
        let mut configurable = crate::config::LANGUAGES;
        configurable.sort_unstable();
        assert_eq!(configurable, ours);
    }

    #[test]
    fn a_language_is_found_by_its_own_tag_only() {
        for language in Language::ALL {
            assert_eq!(Language::from_tag(language.tag()), Some(language));
            let chosen = Language::from_accept_language(Some(language.tag()), &Language::ALL);
            assert_eq!(chosen, language);
        }
        for unknown in ["", "EN", "zh", "pt", "de-DE", " en"] {
            assert_eq!(Language::from_tag(unknown), None, "{unknown}");
        }
    }
}
