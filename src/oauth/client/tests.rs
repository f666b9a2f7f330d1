use super::keys::KeysRefused;
use super::*;
use crate::oauth::redirect_uri::RedirectUriRefused;
use crate::oauth::web_url::WebUrlRefused;

fn parse(metadata: &Value) -> Result<ClientMetadata, RegistrationRefused> {
    parse_text(&metadata.to_string())
}

fn parse_text(text: &str) -> Result<ClientMetadata, RegistrationRefused> {
    let policy = RedirectPolicy { private_schemes: vec!["cursor".to_owned()], allowed: None };
    ClientMetadata::parse(text.as_bytes(), &policy, &RegistrationLimits { redirect_uris: 16 })
}

const URI: &str = "https://good.example/cb";

#[test]
fn reg_06_defaults_are_those_of_the_rfc() {
    let metadata = parse(&json!({ "redirect_uris": [URI] })).unwrap();

    assert_eq!(metadata.token_endpoint_auth_method, AuthMethod::ClientSecretBasic);
    assert_eq!(metadata.grant_types, ["authorization_code"]);
    assert_eq!(metadata.response_types, ["code"]);
}

#[test]
fn a_program_on_the_device_that_names_no_method_is_public() {
    for metadata in [
        json!({ "redirect_uris": ["http://localhost:1/cb"] }),
        json!({ "redirect_uris": ["com.example.app://x/cb", "http://127.0.0.1/cb"] }),
        json!({ "redirect_uris": [URI], "application_type": "native" }),
    ] {
        let metadata = parse(&metadata).unwrap();
        assert_eq!(metadata.token_endpoint_auth_method, AuthMethod::None);
    }
}

#[test]
fn reg_07_unsupported_types_are_dropped_while_a_usable_one_is_left() {
    let metadata = parse(&json!({
        "redirect_uris": [URI],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code", "token"],
    }))
    .unwrap();
    assert_eq!(metadata.grant_types, ["authorization_code", "refresh_token"]);
    assert_eq!(metadata.response_types, ["code"]);

    for unusable in
        [json!({ "grant_types": ["client_credentials"] }), json!({ "response_types": ["token"] })]
    {
        let mut metadata = json!({ "redirect_uris": [URI] });
        metadata.as_object_mut().unwrap().extend(unusable.as_object().unwrap().clone());
        assert!(matches!(parse(&metadata), Err(RegistrationRefused::NothingOffered(_))));
    }
}

#[test]
fn rg_02_unknown_members_are_ignored_and_nothing_can_be_assigned_by_asking() {
    let client = Client {
        id: "client_1".to_owned(),
        origin: Origin::Registered,
        metadata: parse(&json!({
            "redirect_uris": [URI], "client_id": "mine", "client_secret": "mine",
            "trusted": true, "skip_consent": true, "sector_identifier_uri": "https://evil.example",
            "jwks_uri": "https://evil.example/jwks", "request_uris": ["https://evil.example"],
            "token_endpoint_auth_method": "none", "contacts": [], "scope": "", "logo_uri": null,
            "client_uri": "javascript:alert(1)",
        }))
        .unwrap(),
        secret_hash: None,
        issued_at: Timestamp::from_unix(7),
    };
    assert_eq!(
        client.registration_response(None, "a b"),
        json!({
            "client_id": "client_1",
            "client_id_issued_at": 7,
            "redirect_uris": [URI],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        })
    );
}

#[test]
fn reg_08_each_fault_is_named() {
    let faults = [
        ("[]", RegistrationRefused::NotJson),
        ("{", RegistrationRefused::NotJson),
        (
            r#"{"redirect_uris":["https://a.example"],"redirect_uris":["https://b.example"]}"#,
            RegistrationRefused::NotJson,
        ),
        ("{}", RegistrationRefused::NoRedirectUri),
        (r#"{"redirect_uris":[]}"#, RegistrationRefused::NoRedirectUri),
        (
            r#"{"redirect_uris":"https://a.example"}"#,
            RegistrationRefused::Malformed("redirect_uris"),
        ),
        (r#"{"redirect_uris":[7]}"#, RegistrationRefused::Malformed("redirect_uris")),
        (
            r#"{"redirect_uris":["http://a.example"]}"#,
            RegistrationRefused::RedirectUri(RedirectUriRefused::PlainHttp),
        ),
        (
            r#"{"redirect_uris":["https://a.example"],"token_endpoint_auth_method":"tls_client_auth"}"#,
            RegistrationRefused::AuthMethod,
        ),
        (
            r#"{"redirect_uris":["https://a.example"],"token_endpoint_auth_method":"private_key_jwt"}"#,
            RegistrationRefused::NoKeys,
        ),
        (
            r#"{"redirect_uris":["https://a.example"],"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"http://a.example/keys"}"#,
            RegistrationRefused::JwksUri(WebUrlRefused::NotHttps),
        ),
        (
            r#"{"redirect_uris":["https://a.example"],"jwks":{"keys":[{"kty":"oct","k":"AA"}]}}"#,
            RegistrationRefused::Keys(KeysRefused::NotPublic),
        ),
        (
            r#"{"redirect_uris":["https://a.example"],"application_type":"tv"}"#,
            RegistrationRefused::ApplicationType,
        ),
        (
            r#"{"redirect_uris":["https://a.example"],"jwks":{"keys":[]},"jwks_uri":"https://a.example"}"#,
            RegistrationRefused::TwoKeySets,
        ),
        (r#"{"redirect_uris":["https://a.example"],"scope":"a\"b"}"#, RegistrationRefused::Scope),
        (
            r#"{"redirect_uris":["https://a.example"],"x":[[[[[[[[[]]]]]]]]]}"#,
            RegistrationRefused::TooLarge,
        ),
    ];
    for (text, expected) in faults {
        assert_eq!(parse_text(text), Err(expected), "{text}");
    }
}

#[test]
fn quotas_hold_at_the_limit_and_one_past_it() {
    let uris = |count: usize| -> Vec<String> { (0..count).map(|n| format!("{URI}/{n}")).collect() };
    assert!(parse(&json!({ "redirect_uris": uris(16) })).is_ok());
    assert_eq!(
        parse(&json!({ "redirect_uris": uris(17) })),
        Err(RegistrationRefused::TooManyRedirectUris { found: 17, most: 16 })
    );
    let named =
        |length: usize| json!({ "redirect_uris": [URI], "client_name": "é".repeat(length) });
    assert!(parse(&named(128)).is_ok());
    assert_eq!(parse(&named(129)), Err(RegistrationRefused::TooLong("client_name")));
    let members = |count: usize| {
        let mut metadata = json!({ "redirect_uris": [URI] });
        for n in 1..count {
            metadata[format!("m{n}")] = json!(1);
        }
        metadata
    };
    assert!(parse(&members(64)).is_ok());
    assert_eq!(parse(&members(65)), Err(RegistrationRefused::TooLarge));
}

#[test]
fn identical_metadata_is_the_same_public_client_and_any_difference_is_another() {
    let one = parse(&json!({ "redirect_uris": [URI], "client_name": "a" })).unwrap();
    let same = parse(&json!({ "client_name": "a", "redirect_uris": [URI], "x": 1 })).unwrap();
    let other = parse(&json!({ "redirect_uris": [URI], "client_name": "b" })).unwrap();

    assert_eq!(one.identity(), same.identity());
    assert_ne!(one.identity(), other.identity());
    assert_eq!(ClientMetadata::from_stored_json(&one.to_json()).unwrap(), one);
}
