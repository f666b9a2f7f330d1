//! Bar charts: an SVG without text, between a scale and labels that are HTML, so that they keep their size when
//! the chart is narrow. The same numbers follow as a table, for people who do not see the chart.

/// Height of the chart in its own units.
const HEIGHT: i64 = 90;
/// Width of the place of one bar.
const PLACE: i64 = 20;

/// A bar before it is drawn.
pub(super) struct ChartSlot {
    /// What the bar is about, such as a time.
    pub(super) label: String,
    /// The two numbers that are stacked.
    pub(super) numbers: (i64, i64),
}

/// The texts of a chart.
pub(super) struct ChartTexts {
    /// The whole chart in one sentence.
    pub(super) about: String,
    /// The first number of each bar.
    pub(super) first: &'static str,
    /// The second number of each bar, drawn above the first.
    pub(super) second: &'static str,
    /// The heading of the labels.
    pub(super) time: &'static str,
    pub(super) as_table: &'static str,
}

/// A bar chart, prepared for `templates/admin/chart.html`.
pub(super) struct Chart {
    pub(super) texts: ChartTexts,
    pub(super) bars: Vec<Bar>,
    /// The scale, from the top down.
    pub(super) marks: Vec<i64>,
    /// Below the bars; each is as wide as the bars that it is about.
    pub(super) labels: Vec<String>,
    pub(super) width: i64,
}

/// A bar, in the coordinates of the chart.
pub(super) struct Bar {
    pub(super) slot: ChartSlot,
    pub(super) x: i64,
    /// Top and height of the two parts.
    pub(super) first: (i64, i64),
    pub(super) second: (i64, i64),
}

impl Chart {
    /// Draws a bar for each slot. A label is written below each `per_label` slots.
    pub(super) fn of(
        slots: Vec<ChartSlot>,
        labels: Vec<String>,
        per_label: usize,
        texts: ChartTexts,
    ) -> Self {
        let highest = slots.iter().map(|slot| slot.numbers.0 + slot.numbers.1).max().unwrap_or(0);
        let top = scale(highest);
        // The smallest number is still seen.
        let scaled = |n: i64| if n == 0 { 0 } else { (n * HEIGHT / top).max(2) };
        let bar = |(place, slot): (usize, ChartSlot)| {
            let (first, second) = (scaled(slot.numbers.0), scaled(slot.numbers.1));
            Bar {
                x: i64::try_from(place).unwrap_or(0) * PLACE + 2,
                first: (HEIGHT - first, first),
                second: (HEIGHT - first - second, second),
                slot,
            }
        };
        let places = (labels.len() * per_label).max(slots.len());
        Self {
            texts,
            bars: slots.into_iter().enumerate().map(bar).collect(),
            marks: if top > 1 { vec![top, top / 2, 0] } else { vec![top, 0] },
            labels,
            width: i64::try_from(places).unwrap_or(0).max(1) * PLACE,
        }
    }

    /// Returns the bars that are not empty, for the table.
    pub(super) fn counted(&self) -> Vec<&ChartSlot> {
        self.bars.iter().map(|bar| &bar.slot).filter(|slot| slot.numbers != (0, 0)).collect()
    }
}

/// Returns the top of a scale that shows `highest`: 1, or a round number that can be halved.
fn scale(highest: i64) -> i64 {
    let mut unit = 1_i64;
    loop {
        for step in [1, 2, 4, 6, 8] {
            let top = step * unit;
            if highest <= top && (top == 1 || top % 2 == 0) {
                return top;
            }
        }
        let Some(next) = unit.checked_mul(10) else { return highest.max(1) };
        if next > i64::MAX / 10 {
            return highest.max(1);
        }
        unit = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(numbers: &[(i64, i64)], labels: usize, per_label: usize) -> Chart {
        let slots =
            numbers.iter().map(|numbers| ChartSlot { label: "x".to_owned(), numbers: *numbers });
        let texts =
            ChartTexts { about: String::new(), first: "a", second: "b", time: "t", as_table: "n" };
        Chart::of(slots.collect(), vec!["l".to_owned(); labels], per_label, texts)
    }

    #[test]
    fn scales_end_at_round_numbers_that_can_be_halved() {
        for (highest, top) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 4),
            (5, 6),
            (7, 8),
            (9, 10),
            (11, 20),
            (61, 80),
            (99, 100),
            (1000, 1000),
            (1001, 2000),
            (123_456, 200_000),
        ] {
            assert_eq!(scale(highest), top, "{highest}");
        }
        assert_eq!(scale(i64::MAX), i64::MAX);
    }

    #[test]
    fn the_smallest_number_is_seen_and_labels_are_as_wide_as_their_bars() {
        let chart = chart(&[(1000, 0), (1, 0), (0, 0), (500, 500)], 2, 2);

        assert_eq!(chart.marks, [1000, 500, 0]);
        assert_eq!(chart.width, 4 * PLACE);
        let parts: Vec<_> = chart.bars.iter().map(|bar| (bar.first, bar.second)).collect();
        assert_eq!(
            parts,
            [((0, 90), (0, 0)), ((88, 2), (88, 0)), ((90, 0), (90, 0)), ((45, 45), (0, 45))]
        );
        assert_eq!(chart.counted().len(), 3);
    }

    #[test]
    fn a_chart_without_numbers_has_a_scale_all_the_same() {
        let chart = chart(&[(0, 0); 7], 3, 3);
        assert_eq!(chart.marks, [1, 0]);
        assert_eq!(chart.width, 9 * PLACE, "the last label has room for bars that are not there");
        assert!(chart.counted().is_empty());
    }
}
