//! The callback addresses of known apps.
//!
//! An editor acts on links with its scheme: it installs, clones or opens what the link names. For the
//! schemes of these apps a redirect URI must be one of the callbacks below, byte for byte. An administrator
//! can allow further complete addresses in `redirect_schemes`.

/// Editors that run extensions of Visual Studio Code, each with its own scheme.
const EDITORS: &[&str] = &["vscode", "vscode-insiders", "cursor", "windsurf"];
const VS_CODE: &[&str] = &["vscode", "vscode-insiders"];

/// Schemes of known apps. `zed` has no callback here, because it listens on loopback instead.
const APPS: &[&str] = &["vscode", "vscode-insiders", "cursor", "windsurf", "claude", "zed"];

/// Schemes, and the callback after the colon. `*` matches one segment that is not empty.
const CALLBACKS: &[(&[&str], &str)] = &[
    (&["cursor"], "//anysphere.cursor-mcp/oauth/callback"),
    // Cursor until 2025: the segment is the server's name as the person typed it.
    (&["cursor"], "//anysphere.cursor-retrieval/oauth/*/callback"),
    (&["claude"], "//claude.ai/mcp-auth-callback/sdk"),
    (&["claude"], "//claude.ai/mcp-auth-callback"),
    (VS_CODE, "//vscode.github-authentication/did-authenticate"),
    // Cline: the segment is a hash of the server's URL.
    (EDITORS, "//saoudrizwan.claude-dev/mcp-auth/callback/*"),
];

/// Returns whether the scheme belongs to a known app.
pub(super) fn is_known_app(scheme: &str) -> bool {
    APPS.contains(&scheme)
}

/// Returns whether `text` is a known callback of the app with this scheme.
pub(super) fn is_known(scheme: &str, text: &str) -> bool {
    let Some((_, rest)) = text.split_once(':') else { return false };
    CALLBACKS.iter().any(|(schemes, pattern)| schemes.contains(&scheme) && fits(pattern, rest))
}

fn fits(pattern: &str, text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let (wanted, given) = (pattern.split('/'), text.split('/'));
    wanted.clone().count() == given.clone().count()
        && wanted.zip(given).all(|(wanted, given)| match wanted {
            "*" => !given.is_empty() && given.bytes().all(plain),
            exact => exact == given,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_plain_segment() {
        for (text, known) in [
            ("cursor://anysphere.cursor-retrieval/oauth/user-a_b.c/callback", true),
            ("cursor://anysphere.cursor-retrieval/oauth//callback", false),
            ("cursor://anysphere.cursor-retrieval/oauth/a/b/callback", false),
            ("cursor://anysphere.cursor-retrieval/oauth/a?b/callback", false),
            ("cursor://anysphere.cursor-retrieval/oauth/a%41/callback", false),
            ("cursor://anysphere.cursor-mcp/oauth/callback", true),
            ("cursor:/anysphere.cursor-mcp/oauth/callback", false),
            ("cursor:///anysphere.cursor-mcp/oauth/callback", false),
        ] {
            assert_eq!(is_known("cursor", text), known, "{text}");
        }
        assert!(!is_known("windsurf", "windsurf://anysphere.cursor-mcp/oauth/callback"));
    }
}
