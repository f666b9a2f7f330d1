//! Links between the admin pages, and pages of lists.

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

/// Removes the surplus row, if there is one, and returns the link to the next page.
pub(super) fn next_page<T>(rows: &mut Vec<T>, link: impl Fn(&T) -> String) -> Option<String> {
    let wanted = usize::try_from(ROWS).unwrap_or(usize::MAX);
    if rows.len() <= wanted {
        return None;
    }
    rows.truncate(wanted);
    rows.last().map(link)
}
