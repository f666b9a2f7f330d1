//! Times for people. The zone is always named: UTC, or that of `branding.timezone` on pages of people.

use jiff::tz::TimeZone;

use crate::clock::Timestamp;
use crate::config::Branding;

/// Formats a time for people: `2026-11-21 09:41 CET (UTC+01:00)`, or in UTC if no zone is configured.
pub fn local(moment: Timestamp, brand: &Branding) -> String {
    let zone = brand.timezone.as_ref();
    zone.and_then(|zone| in_zone(moment, zone)).unwrap_or_else(|| utc(moment))
}

fn in_zone(moment: Timestamp, zone: &TimeZone) -> Option<String> {
    let time = jiff::Timestamp::from_second(moment.unix()).ok()?.to_zoned(zone.clone());
    let abbreviation = time.strftime("%Z").to_string();
    // Zones without an abbreviation have the offset in its place.
    let format = if abbreviation.starts_with(['+', '-']) {
        "%Y-%m-%d %H:%M UTC%:z"
    } else {
        "%Y-%m-%d %H:%M %Z (UTC%:z)"
    };
    Some(time.strftime(format).to_string())
}

/// Formats a time for people: `2026-11-21 08:41 UTC`. Always with the zone, because readers may be in any.
pub fn utc(moment: Timestamp) -> String {
    format(moment, "%Y-%m-%d %H:%M UTC")
}

/// The same, with seconds.
pub fn utc_seconds(moment: Timestamp) -> String {
    format(moment, "%Y-%m-%d %H:%M:%S UTC")
}

/// The same, for `<time datetime>`.
pub fn iso(moment: Timestamp) -> String {
    format(moment, "%Y-%m-%dT%H:%M:%SZ")
}

/// Formats a time in UTC.
pub fn format(moment: Timestamp, how: &str) -> String {
    chrono::DateTime::from_timestamp(moment.unix(), 0)
        .map(|time| time.format(how).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UNBRANDED;

    #[test]
    fn a_time_names_its_zone_in_summer_and_in_winter() {
        let shown = |name: Option<&str>, unix| {
            let timezone = name.map(|name| TimeZone::get(name).unwrap());
            local(Timestamp::from_unix(unix), &Branding { timezone, ..UNBRANDED.clone() })
        };
        let (winter, summer) = (1_795_219_200, 1_782_000_000);
        for (name, unix, text) in [
            (None, winter, "2026-11-21 00:00 UTC"),
            (Some("Europe/Berlin"), winter, "2026-11-21 01:00 CET (UTC+01:00)"),
            (Some("Europe/Berlin"), summer, "2026-06-21 02:00 CEST (UTC+02:00)"),
            (Some("Asia/Tokyo"), winter, "2026-11-21 09:00 JST (UTC+09:00)"),
            (Some("Asia/Kathmandu"), winter, "2026-11-21 05:45 UTC+05:45"),
            (Some("America/Sao_Paulo"), winter, "2026-11-20 21:00 UTC-03:00"),
        ] {
            assert_eq!(shown(name, unix), text);
        }
    }
}
