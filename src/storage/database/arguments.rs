//! A check on the values of a statement, before either engine sees them.

use sqlx::any::AnyArguments;
use sqlx_core::any::AnyValueKind;

/// Rejects texts that contain NUL. PostgreSQL rejects them, and both engines must behave alike.
pub(super) fn check_texts(arguments: Option<&AnyArguments>) -> Result<(), sqlx::Error> {
    let values = arguments.map_or(&[][..], |arguments| &arguments.values.0);
    let has_nul = values.iter().any(|value| match value {
        AnyValueKind::Text(text) => text.contains('\0'),
        AnyValueKind::TextSlice(text) => text.contains('\0'),
        _ => false,
    });
    if has_nul { Err(sqlx::Error::Encode("a text has a NUL in it".into())) } else { Ok(()) }
}
