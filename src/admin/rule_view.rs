//! Rules, compared with a person, prepared for display (`templates/admin/rule_reports.html`).

use super::advice::{Advice, ConditionReport, RuleReport};
use crate::policy::Holds;
use crate::web::words::words;

words! {
    /// Words for rules that are compared with a person.
    pub(super) struct ReportWords {
        rule: "Rule", "ルール";
        conditions: "Conditions, and what the provider sent", "条件と送信された情報";
        effect: "Of what is lacking", "不足しているスコープに対して";
        nearest: "nearest", "最も近い";
        matches: "matches", "該当";
        matches_not: "does not match", "非該当";
        unknown: "not known", "不明";
        yes: "met", "満たす";
        no: "not met", "満たさない";
        sent: "sent:", "送信された値:";
        always: "no conditions", "条件なし";
        would_allow: "would allow", "許可しうる範囲:";
        denies: "denies", "拒否:";
        nothing: "nothing", "なし";
    }
}

pub(super) struct RuleView {
    pub(super) report: RuleReport,
    pub(super) matches: &'static str,
    pub(super) conditions: Vec<ConditionView>,
}

pub(super) struct ConditionView {
    pub(super) report: ConditionReport,
    /// Class of the tag.
    pub(super) kind: &'static str,
    pub(super) holds: &'static str,
}

impl RuleView {
    /// Prepares every rule of the advice.
    pub(super) fn all(advice: &Advice<'_>, w: &'static ReportWords) -> Vec<Self> {
        advice.rules().into_iter().map(|report| Self::of(report, w)).collect()
    }

    fn of(mut report: RuleReport, w: &'static ReportWords) -> Self {
        let conditions = std::mem::take(&mut report.conditions);
        Self {
            matches: match report.holds {
                Holds::Yes => w.matches,
                Holds::No => w.matches_not,
                Holds::Unknown => w.unknown,
            },
            conditions: conditions
                .into_iter()
                .map(|report| {
                    let (kind, holds) = match report.holds {
                        Holds::Yes => ("good", w.yes),
                        Holds::No => ("quiet", w.no),
                        Holds::Unknown => ("", w.unknown),
                    };
                    ConditionView { report, kind, holds }
                })
                .collect(),
            report,
        }
    }
}
