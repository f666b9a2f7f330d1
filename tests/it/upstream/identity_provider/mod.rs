//! What an identity provider may do to us, over HTTP: families of faults, providers as they really
//! behave, and tables of roles. The demo provider plays all parts, and what it plays is data.
//!
//! `tests/it/documents.rs` checks that every test named here exists.
//!
//! | family | tests |
//! |---|---|
//! | A1 discovery: issuer, status, HTML, slow, redirect | `a_discovery_document_that_cannot_be_used_leaves_the_consent_page_good`, `a_provider_that_never_answers_is_waited_for_only_so_long`, `details_of_discovery_are_tolerated_or_the_member_is_named` |
//! | A2 keys | `a_rotated_key_is_fetched_once_when_it_is_first_seen`, `an_unknown_key_makes_us_ask_at_most_once_a_minute`, `keys_that_cannot_be_told_apart_or_are_not_for_signing_verify_nothing`, `an_oversized_set_of_keys_is_not_read`, `known_keys_serve_while_new_ones_cannot_be_had`, `details_of_the_keys_are_tolerated_or_the_member_is_named`, `jw_01_one_list_of_algorithms_is_for_everything_of_one_provider` |
//! | A3 ID tokens | `up_01_a_forged_or_foreign_id_token_signs_nobody_in`, `an_id_token_is_judged_by_the_clock_with_a_minute_of_tolerance`, `an_encrypted_id_token_is_named_as_such`, `a_doubtful_id_token_at_a_refresh_is_neither_yes_nor_no_and_loses_no_token`, `an_answer_about_somebody_else_ends_the_session`, `up_01_of_several_audiences_the_authorized_party_must_be_us`, `a_claim_that_nobody_reads_may_be_anything`, `a_claim_that_protects_somebody_is_named_when_it_cannot_be_read`, `an_unreadable_claim_at_a_refresh_takes_nothing_away` |
//! | A4 token endpoint | `trouble_at_the_providers_token_endpoint_is_told_apart`, `every_answer_to_a_refresh_has_its_class`, `an_answer_in_loose_json_is_read_all_the_same`, `details_of_a_token_answer_cost_nobody_a_sign_in_or_a_refresh_token`, `a_rotated_refresh_token_is_kept_whatever_else_is_wrong`, `a_lost_answer_is_asked_for_again_at_once`, `a_refresh_that_is_never_answered_is_bridged` |
//! | A5 rotation | `a_refresh_token_that_stays_is_used_again_and_again`, `a_provider_that_rotates_strictly_is_asked_by_one_at_a_time`, `within_the_providers_grace_a_lost_answer_is_made_good`, `without_grace_a_lost_answer_ends_in_one_clear_sign_in`, `only_the_newest_refresh_token_is_ever_presented` |
//! | A6 concurrency | `fifty_refreshes_of_one_login_on_two_replicas_ask_the_provider_once`, `a_kill_after_the_providers_rotation_is_healed_by_its_grace`, `a_kill_after_the_providers_rotation_without_grace_is_one_clear_sign_in`, `the_right_to_ask_of_a_process_that_is_gone_runs_out_within_seconds` |
//! | A7 callback | `every_error_of_the_callback_has_its_answer`, `a_sign_in_that_the_provider_ended_is_begun_again_once`, `a_sign_in_that_is_ended_twice_is_told_as_it_is`, `a_provider_that_says_it_cannot_is_not_called_silent`, `a_sign_in_that_is_begun_again_ends_when_it_would_have_ended`, `a_sign_in_to_the_pages_that_the_provider_ended_is_begun_again_once`, `only_known_descriptions_of_an_error_are_logged`, `what_the_provider_says_of_an_error_is_neither_shown_nor_passed_on`, `up_07_iss_of_the_callback_must_be_the_providers`, `iss_may_be_missing_only_where_it_was_not_promised`, `br_01_another_browser_cannot_finish_a_login`, `br_04_one_callback_wins_of_a_hundred` |
//! | A8 wrong secret | `our_own_wrong_secret_logs_nobody_out`, `an_expired_secret_costs_nobody_their_session_and_a_new_one_mends_it` |
//! | A9 outage and grace | `an_outage_is_bridged_for_an_hour_to_the_second`, `an_outage_logs_nobody_out` |
//! | A10 client authentication | `each_method_of_client_authentication_reaches_a_provider_that_takes_no_other` |
//! | A11 back-channel logout | `a_sign_out_there_ends_that_session_here_at_once`, `without_a_session_id_everything_of_the_person_ends`, `a_message_counts_once`, `what_is_not_exactly_a_logout_token_of_our_provider_is_refused`, `details_of_a_logout_token_are_tolerated_or_the_claim_is_named`, `a_sign_out_that_overtakes_the_callback_ends_the_login` |
//! | A12 endpoints move | `endpoints_that_move_are_followed_within_the_hour` |
//! | A13 userinfo | `userinfo_that_cannot_be_trusted_or_had_tells_nothing`, `userinfo_that_stops_telling_roles_takes_them_away`, `an_outage_of_userinfo_takes_nothing_away`, `without_an_id_token_at_a_refresh_userinfo_is_asked_and_takes_roles_away`, `what_the_provider_never_tells_again_is_good_for_as_long_as_it_may_be`, `userinfo_that_answers_and_tells_nothing_of_the_person_is_no_outage`, `nobody_is_sent_to_sign_in_again_for_what_no_rule_reads`, `signed_userinfo_is_verified_and_read`, `a_silent_userinfo_is_bridged_no_longer_than_an_outage`, `userinfo_that_tells_nothing_is_believed_no_longer_than_a_sign_in`, `what_an_id_token_takes_away_does_not_wait_for_userinfo`, `a_silent_userinfo_is_asked_again_at_most_once_a_minute` |
//! | B personas | `okta_org_tells_groups_in_the_id_token_and_keeps_one_refresh_token`, `okta_custom_refuses_the_scope_groups_and_rotates_with_a_leeway`, `auth0_gives_permissions_to_an_audience_and_refuses_with_403`, `auth0_lets_in_only_the_organization_that_was_asked_for`, `auth0_says_a_blocked_user_is_unauthorized`, `keycloak_tells_roles_in_the_access_token_only`, `keycloak_says_in_many_words_that_a_session_is_over`, `keycloak_forgets_a_browser_session_that_rests_for_half_an_hour`, `entra_is_known_by_tenant_and_object`, `entra_ends_everything_of_a_person_whichever_name_the_message_uses`, `a_message_of_google_under_its_other_name_counts`, `entra_cuts_long_lists_of_groups_short`, `google_wants_no_offline_scope_and_a_hosted_domain`, `logto_signs_with_es384_and_wants_consent_for_a_refresh_token`, `cognito_has_its_endpoints_elsewhere_and_no_offline_scope`, `zitadel_names_roles_as_keys_and_the_address_in_userinfo`, `authentik_verifies_no_address`, `authelia_tells_groups_in_userinfo_and_forgets_after_ninety_minutes`, `pingfederate_refreshes_without_an_id_token`, `onelogin_knows_no_offline_scope_and_ends_sessions_of_other_applications`, `gitlab_rotates_without_grace_and_tells_direct_groups`, `dex_without_refresh_tells_no_refresh_token`, `dex_tells_changed_groups_at_a_refresh`, `the_barest_openid_provider_is_enough`; GitHub in `tests/it/github.rs`: `a_member_signs_in_and_teams_decide`, `errors_that_come_with_status_200_are_still_errors`, `an_expiring_token_of_a_github_app_is_rotated_and_kept`, `a_list_of_github_that_is_cut_short_satisfies_no_allow_and_every_deny`, `membership_beyond_the_end_of_a_list_is_not_known` |
//! | C rules | `the_to_do_example_holds_over_http`, `deny_beats_allow_and_unknown_groups_satisfy_denies_only`, `a_claim_of_the_wrong_shape_is_unknown`, `rules_are_asked_again_at_every_refresh`, `permissions_that_no_scope_is_named_after_pass_nothing_through`, `patterns_match_whole_names_and_a_group_is_no_role`, `up_02_only_a_verified_address_of_a_trusted_provider_satisfies_a_domain`, `up_02_the_flag_and_the_address_come_from_one_source`, `an_unverified_address_escapes_no_deny`, `a_deny_on_a_claim_or_domain_holds_while_userinfo_is_silent`, `a_deny_on_a_claim_reads_each_item_of_a_list_and_each_type`, `who_loses_everything_is_told_so_and_ends`, `a_provider_open_to_the_world_needs_a_limit_or_a_word` |

mod callback;
mod discovery;
mod ended;
mod id_tokens;
mod keys;
mod oddities;
mod personas;
mod rotation;
mod rules;
mod token_endpoint;
mod userinfo;

use crate::harness::client::{McpClient, Tokens};
use crate::harness::{Setup, TestApp};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// Refreshes a quarter of an hour and more later, when the provider has to be asked.
async fn ask_again(app: &TestApp, client: &McpClient, tokens: &Tokens) -> Tokens {
    app.advance(16 * MINUTE);
    Tokens::of(&client.refresh(&tokens.refresh_token).await)
}

/// Asserts that the refresh was answered on what the provider says now, not on an old answer.
#[track_caller]
fn assert_fresh(tokens: &Tokens) {
    assert_eq!(tokens.expires_in, 600, "bridged: the provider gave no answer of use");
}

/// Asserts that the refresh was answered on an old answer of the provider.
#[track_caller]
fn assert_bridged(tokens: &Tokens) {
    assert_eq!(tokens.expires_in, 300, "not bridged");
}

fn upstream(text: &str) -> Setup {
    Setup::toml(format!("[upstream]\n{text}"))
}
