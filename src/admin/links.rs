//! Links between the admin pages, and pages of lists.

use crate::storage::AuditLine;
use crate::web::list_page::Pager;
use crate::web::words::Language;

/// Rows per page.
pub(super) const ROWS: i64 = 50;

/// Begins a URL with `path` and a query, to which the caller appends parameters.
pub(super) fn query(path: &str) -> form_urlencoded::Serializer<'static, String> {
    form_urlencoded::Serializer::for_suffix(format!("{path}?"), path.len() + 1)
}

/// Returns the path of a person's page.
pub(super) fn person_path(subject: &str) -> String {
    let subject: String = form_urlencoded::byte_serialize(subject.as_bytes()).collect();
    format!("/person?sub={subject}")
}

/// Returns the path of a client's page.
pub(super) fn client_path(id: &str) -> String {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    format!("/client?id={id}")
}

/// Returns the path of the page that says why the person of this line was refused. `None`: there is none.
pub(super) fn why_path(line: &AuditLine) -> Option<String> {
    let by_rules = match line.event.as_str() {
        // With a reason, the client was refused and not the person.
        "access_denied" => !line.detail.contains("\"reason\""),
        "access_lost" | "step_up_refused" => true,
        _ => false,
    };
    let (subject, server) = (line.subject.as_deref()?, line.resource.as_deref()?);
    by_rules.then(|| refused_person_path(subject, server))
}

/// Returns the path of the page that says why the rules refused a person at an MCP server.
pub(super) fn refused_person_path(subject: &str, server: &str) -> String {
    query("/refused/person").append_pair("sub", subject).append_pair("server", server).finish()
}

/// Where a page of a list begins: after a row, before it, or at the beginning.
pub(super) struct PagePlace<'a> {
    /// The row, as the storage names places; empty at the beginning.
    pub(super) row: &'a str,
    /// Whether the page ends before that row.
    pub(super) backwards: bool,
}

impl PagePlace<'_> {
    /// Removes the surplus row, if there is one, and returns the links to the pages around this one.
    /// `link` returns the link to the page after a row, or with `true` to the page before it.
    pub(super) fn pager<T>(
        &self,
        language: Language,
        rows: &mut Vec<T>,
        link: impl Fn(&T, bool) -> String,
    ) -> Pager {
        let wanted = usize::try_from(ROWS).unwrap_or(usize::MAX);
        let more = rows.len() > wanted;
        if more && self.backwards {
            rows.remove(0); // the surplus row is the one farthest from the place
        }
        rows.truncate(wanted);
        let begins_list = if self.backwards { !more } else { self.row.is_empty() };
        let ends_list = !more && !self.backwards;
        Pager::new(
            language,
            rows.first().filter(|_| !begins_list).map(|first| link(first, true)),
            rows.last().filter(|_| !ends_list).map(|last| link(last, false)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pages of a list of so many rows, from the first to the last and back.
    fn pages(rows: i64) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
        let page = |place: &str, backwards: bool| {
            let at: i64 = place.parse().unwrap_or(0);
            let mut read: Vec<i64> = if backwards {
                (1..at).rev().take(51).collect::<Vec<_>>().into_iter().rev().collect()
            } else {
                (at + 1..=rows).take(51).collect()
            };
            let place = PagePlace { row: place, backwards };
            let link = |row: &i64, backwards: bool| format!("{row} {backwards}");
            let pager = place.pager(Language::English, &mut read, link);
            (read, pager.previous, pager.next)
        };
        let parse = |link: &str| {
            let (row, backwards) = link.split_once(' ').unwrap();
            (row.to_owned(), backwards == "true")
        };
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        let (mut row, mut backwards) = (String::new(), false);
        let mut last = loop {
            let (read, previous, next) = page(&row, backwards);
            assert_eq!(previous.is_none(), forth.is_empty());
            forth.push(read);
            match next {
                Some(next) => (row, backwards) = parse(&next),
                None => break previous,
            }
        };
        while let Some(previous) = last {
            (row, backwards) = parse(&previous);
            let (read, before, next) = page(&row, backwards);
            assert!(next.is_some());
            back.push(read);
            last = before;
        }
        back.reverse();
        (forth, back)
    }

    #[test]
    fn every_row_is_on_one_page_forth_and_back() {
        for rows in [0, 1, 50, 51, 100, 101, 149, 150, 151] {
            let (forth, back) = pages(rows);
            let all: Vec<i64> = (1..=rows).collect();
            assert_eq!(forth.concat(), all, "{rows} rows");
            assert_eq!(back, forth[..forth.len() - 1], "{rows} rows");
        }
    }
}
