//! Which test shows that a requirement of MCP is met, for each revision. `docs/dev/conformance.md` is written
//! from this table.

use std::fmt::Write as _;
use std::path::Path;

use crate::repository::architecture::rust_files;

const REVISIONS: [&str; 4] = ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// What a cell says.
#[derive(Clone, Copy)]
enum Cell {
    /// Shown by this test.
    Test(&'static str),
    /// Does not apply, and why.
    None(&'static str),
}

use Cell::{None, Test};

const fn all(test: &'static str) -> [Cell; 4] {
    [Test(test); 4]
}

const fn since_0618(test: &'static str, why_not: &'static str) -> [Cell; 4] {
    [None(why_not), Test(test), Test(test), Test(test)]
}

const fn since_1125(test: &'static str, why_not: &'static str) -> [Cell; 4] {
    [None(why_not), None(why_not), Test(test), Test(test)]
}

const fn only_0728(test: &'static str, why_not: &'static str) -> [Cell; 4] {
    [None(why_not), None(why_not), None(why_not), Test(test)]
}

const fn until_1125(test: &'static str, why_not: &'static str) -> [Cell; 4] {
    [Test(test), Test(test), Test(test), None(why_not)]
}

const NO_RESOURCE_METADATA: &str = "has no resource metadata";
const NO_SCOPES_IN_CHALLENGES: &str = "challenges name no scopes";
const NOT_YET: &str = "not asked for yet";
const NO_SESSIONS: &str = "has no sessions";

/// A requirement, and its cell for each revision.
const TABLE: &[(&str, [Cell; 4])] = &[
    // The whole way.
    (
        "A client of this revision gets to a tool call",
        [
            Test("m0326_everything_is_at_the_origin_and_no_resource_is_named"),
            Test("m0618_the_challenge_leads_to_resource_metadata_and_resource_is_named_twice"),
            Test("m1125_well_known_places_are_enough_and_the_challenge_names_scopes"),
            Test("m0728_a_stateless_client_gets_to_a_tool_call"),
        ],
    ),
    // Discovery.
    (
        "Server metadata by RFC 8414 at the origin",
        all("meta_01_server_metadata_names_every_endpoint_and_only_what_works"),
    ),
    (
        "`/authorize`, `/token`, `/register` under these names at the MCP server's origin",
        [
            Test("m0326_the_default_names_work_for_a_client_that_finds_no_metadata"),
            None("metadata names the endpoints"),
            None("metadata names the endpoints"),
            None("metadata names the endpoints"),
        ],
    ),
    (
        "OpenID discovery as another way to the same metadata",
        since_1125("meta_03_every_probed_location_answers_and_names_the_same_issuer", NOT_YET),
    ),
    (
        "Resource metadata (RFC 9728), named by the challenge",
        since_0618(
            "m0618_the_challenge_leads_to_resource_metadata_and_resource_is_named_twice",
            NO_RESOURCE_METADATA,
        ),
    ),
    (
        "Resource metadata at the well-known places, path first",
        since_1125(
            "m1125_well_known_places_are_enough_and_the_challenge_names_scopes",
            "the challenge alone names it",
        ),
    ),
    (
        "Each resource names itself as a person types it",
        since_0618("prm_01_each_resource_has_its_own_metadata", NO_RESOURCE_METADATA),
    ),
    (
        "`issuer` is the same, byte for byte, wherever it stands",
        since_0618(
            "meta_03_every_probed_location_answers_and_names_the_same_issuer",
            "clients compare nothing",
        ),
    ),
    (
        "`code_challenge_methods_supported` in both documents",
        since_1125(
            "m1125_well_known_places_are_enough_and_the_challenge_names_scopes",
            "clients do not look",
        ),
    ),
    // Registration.
    (
        "Dynamic registration (deprecated in 2026-07-28, still what most clients use)",
        all("reg_01_a_public_client_gets_everything_it_registered_and_no_secret"),
    ),
    (
        "Redirect URIs: exact, https or loopback",
        all("ru_01_an_unproven_redirect_uri_gets_a_page_and_never_a_redirect"),
    ),
    ("`application_type`", only_0728("m0728_application_type_is_taken_and_echoed", NOT_YET)),
    // Authorization.
    ("PKCE with S256, always", all("pk_01_pkce_cannot_be_skipped_by_leaving_it_out")),
    (
        "Consent for each client before the request goes upstream",
        all("cd_01_a_new_client_never_reaches_the_identity_provider_without_consent"),
    ),
    (
        "`resource` may be left out: the default is meant",
        [
            Test("m0326_without_resource_the_default_is_meant_or_the_client_is_told"),
            None("clients must send it"),
            None("clients must send it"),
            None("clients must send it"),
        ],
    ),
    (
        "`resource` (RFC 8707) in both requests; an unknown one is `invalid_target`",
        since_0618(
            "rt_07_a_wrong_resource_is_invalid_target_and_uses_nothing_up",
            "clients do not send it",
        ),
    ),
    (
        "`iss` (RFC 9207) in every answer, advertised",
        only_0728("m0728_iss_is_in_every_answer_byte_for_byte_and_advertised", NOT_YET),
    ),
    (
        "Refresh tokens of public clients rotate",
        all("rt_01_each_use_brings_a_new_token_and_the_same_scopes"),
    ),
    (
        "`offline_access` asks to stay connected, and is not a scope of the resource",
        only_0728("m0728_offline_access_is_the_authorization_servers_word_alone", NOT_YET),
    ),
    (
        "The identity provider's no ends tokens",
        all("a_disabled_person_is_out_within_the_re_check_time"),
    ),
    // Tokens at the MCP server.
    (
        "A token opens the one server it is for",
        all("au_01_a_token_for_one_mcp_server_opens_no_other"),
    ),
    (
        "The `Authorization` header alone, on every request, whatever the method",
        all("gw_01_no_token_is_challenged_whatever_the_method_and_nothing_reaches_the_server"),
    ),
    ("No token in a query", all("a_token_in_the_query_or_twice_is_not_read")),
    (
        "The token does not pass to the server behind",
        all("a_client_that_knows_only_the_mcp_url_gets_to_a_tool_call"),
    ),
    (
        "401 names the scopes to ask for",
        since_1125(
            "m1125_well_known_places_are_enough_and_the_challenge_names_scopes",
            NO_SCOPES_IN_CHALLENGES,
        ),
    ),
    (
        "403 `insufficient_scope` for a tool, and the way back",
        since_1125(
            "a_client_comes_back_with_the_union_and_the_call_succeeds",
            NO_SCOPES_IN_CHALLENGES,
        ),
    ),
    (
        "All scopes of a call in one challenge, the same each time",
        only_0728("m0728_one_challenge_names_all_scopes_that_a_call_needs", NOT_YET),
    ),
    (
        "Scope hierarchies: a broad scope meets a narrow need",
        only_0728("gw_07_a_broad_scope_opens_what_needs_a_narrow_one", NOT_YET),
    ),
    // Transport.
    (
        "Tool rules apply in batches",
        [
            Test("gw_05_tool_rules_hold_in_batches_and_against_lying_headers"),
            None("has no batches; they are read all the same"),
            None("has no batches; they are read all the same"),
            None("has no batches; they are read all the same"),
        ],
    ),
    (
        "Sessions belong to one person and client",
        until_1125("gw_06_a_session_belongs_to_one_person_and_one_client", NO_SESSIONS),
    ),
    ("The event stream of GET", until_1125("events_pass_as_they_happen", "has no GET stream")),
    (
        "`MCP-Protocol-Version` passes",
        since_0618(
            "m0618_the_challenge_leads_to_resource_metadata_and_resource_is_named_twice",
            "has no such header",
        ),
    ),
    (
        "`Mcp-Method` and `Mcp-Name` agree with the body, or -32020",
        only_0728(
            "gw_05_tool_rules_hold_in_batches_and_against_lying_headers",
            "has no such headers",
        ),
    ),
    (
        "These headers are there, and `Mcp-Name` names the task of `tasks/get`, `update` and `cancel`",
        only_0728(
            "gw_23_a_request_that_states_2026_07_28_brings_its_headers",
            "has no such headers",
        ),
    ),
    (
        "Events of one principal are not resumed by another (`Last-Event-ID`)",
        until_1125("gw_22_an_event_id_is_of_use_to_its_holder_only", "streams are not resumable"),
    ),
    (
        "A task belongs to the person and client that started it",
        [
            None("has no tasks"),
            None("has no tasks"),
            Test("gw_20_a_task_is_of_use_to_the_person_and_client_that_made_it"),
            Test("gw_20_a_task_is_of_use_to_the_person_and_client_that_made_it"),
        ],
    ),
    (
        "Refusals are never a bare 400, which would send a client back an era",
        only_0728(
            "gw_37_refusals_of_the_gateway_are_never_a_bare_400",
            "there is nothing to fall back to",
        ),
    ),
    (
        "`Mcp-Param-*` passes untouched, by any name that HTTP allows",
        only_0728("a_parameter_may_be_named_by_any_token", "has no such headers"),
    ),
    (
        "Web pages of unlisted origins are refused",
        all("gw_17_web_pages_of_unlisted_origins_are_refused"),
    ),
    (
        "Servers on HTTP+SSE (2024-11-05) behind the same checks",
        until_1125(
            "gw_40_an_old_server_works_through_one_path_with_every_check",
            "its clients do not speak it",
        ),
    ),
];

fn rendered() -> String {
    let mut text = String::from(
        "# Conformance\n\n\
         Each requirement of MCP authorization, and of what a gateway sees of its transport, for each\n\
        revision of MCP: the test that shows that Portcullis meets it, or why it does not apply. The\n\
        tests are in `tests/it`; `cargo test <name>` runs one. This page is written from the table in\n\
        `tests/it/repository/conformance.rs` by `WRITE_DOCS=1 cargo test conformance`.\n\n",
    );
    let _ = writeln!(text, "| requirement | {} |", REVISIONS.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(REVISIONS.len()));
    for (requirement, cells) in TABLE {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| match cell {
                Test(name) => format!("`{name}`"),
                None(why) => format!("– {why}"),
            })
            .collect();
        let _ = writeln!(text, "| {requirement} | {} |", cells.join(" | "));
    }
    text
}

#[test]
fn conformance_md_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dev/conformance.md");
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, rendered()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == rendered(),
        "docs/dev/conformance.md is stale; write it again with: WRITE_DOCS=1 cargo test conformance"
    );
}

#[test]
fn conformance_names_tests_that_exist() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"), &mut files);
    let code: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for (requirement, cells) in TABLE {
        for cell in cells {
            if let Test(name) = cell {
                assert!(code.contains(&format!("fn {name}(")), "{requirement}: no test {name}");
            }
        }
    }
}
