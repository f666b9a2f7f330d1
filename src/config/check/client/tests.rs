use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{Config, Loaded, Problems};
use crate::oauth::client::AuthMethod;

const OK: &str = r#"
public_url = "https://mcp.example.com"
[upstream]
provider = "oidc"
issuer = "https://id.example.com"
client_id = "portcullis"
client_secret = { env = "SECRET" }
[[resource]]
path = "/mcp"
scopes = ["read"]
"#;

const SECRET: &str = "0123456789012345678901234567890123456789";

fn load(more: &str) -> Result<Loaded, Problems> {
    let env = BTreeMap::from([("SECRET".to_owned(), SECRET.to_owned())]);
    Config::load(Some((Path::new("portcullis.toml"), format!("{OK}\n{more}"))), &env)
}

#[track_caller]
fn problem(more: &str) -> (String, String) {
    let found = load(more).err().unwrap_or_else(|| panic!("was accepted:\n{more}")).0;
    assert_eq!(found.len(), 1, "{found:#?}");
    (found[0].key.clone(), found[0].reason.clone())
}

fn client(lines: &str) -> String {
    format!("[[client]]\n{lines}\n")
}

const HEAD: &str = r#"
client_id = "intranet"
name = "Intranet"
redirect_uris = ["https://intranet.example/callback"]
"#;

#[test]
fn a_client_is_written_down_with_one_way_to_prove_itself() {
    let jwks = r#"jwks = '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'"#;
    for (proof, method) in [
        ("secret = { env = \"SECRET\" }", AuthMethod::ClientSecretBasic),
        ("public = true", AuthMethod::None),
        (jwks, AuthMethod::PrivateKeyJwt),
        ("jwks_uri = \"https://intranet.example/jwks\"", AuthMethod::PrivateKeyJwt),
    ] {
        let loaded = load(&client(&format!("{HEAD}{proof}\ntrusted = true"))).unwrap();
        let [client] = loaded.config.clients.as_slice() else { panic!("one client") };
        assert_eq!(client.metadata.token_endpoint_auth_method, method, "{proof}");
        assert_eq!(client.secret.is_some(), method == AuthMethod::ClientSecretBasic);
        assert!(client.trusted);
        assert!(!loaded.show().contains(SECRET) && loaded.warnings.is_empty());
    }
}

#[test]
fn each_fault_of_a_client_is_named() {
    for (lines, key, reason) in [
        (HEAD.to_owned(), "client[0]", "exactly one way"),
        (
            format!("{HEAD}public = true\nsecret = {{ env = \"SECRET\" }}"),
            "client[0]",
            "exactly one way",
        ),
        (format!("{HEAD}secret = {{ env = \"ABSENT\" }}"), "client[0].secret", "not set"),
        (format!("{HEAD}jwks = \"x\""), "client[0].jwks", "not JSON"),
        (
            format!("{HEAD}jwks = '{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"AA\"}}]}}'"),
            "client[0].jwks",
            "private or symmetric",
        ),
        (format!("{HEAD}jwks = '{{\"keys\":[]}}'"), "client[0].jwks", "usable public key"),
        (format!("{HEAD}jwks_uri = \"http://x.example/k\""), "client[0].jwks_uri", "not https"),
        (format!("{HEAD}jwks_uri = \"https://10.0.0.1/k\""), "client[0].jwks_uri", "public DNS"),
        (
            format!("{HEAD}public = true").replace("intranet\"", "in tranet\""),
            "client[0].client_id",
            "is not a client_id",
        ),
        (
            format!("{HEAD}public = true").replace("https://", "http://"),
            "client[0].redirect_uris",
            "http is allowed",
        ),
        (format!("{HEAD}public = true").replace("name", "nam"), "client[0].name", "is missing"),
        (format!("{HEAD}public = true\npubic = true"), "client[0].pubic", "is not a key"),
    ] {
        let found =
            load(&client(&lines)).err().unwrap_or_else(|| panic!("was accepted: {lines}")).0;
        assert!(
            found.iter().any(|problem| problem.key == key && problem.reason.contains(reason)),
            "{lines}: {found:#?}"
        );
    }
    let short = client(&format!("{HEAD}secret = \"short\""));
    assert_eq!(problem(&short).0, "client[0].secret");
    let twice = client(&format!("{HEAD}public = true")).repeat(2);
    assert_eq!(problem(&twice).1, "is the client_id of two clients");
    let url = format!("{HEAD}secret = {{ env = \"SECRET\" }}")
        .replace("\"intranet\"", "\"https://intranet.example/c\"");
    assert_eq!(problem(&client(&url)).0, "client[0].client_id");
}

#[test]
fn the_administrators_own_clients_are_not_held_to_the_list_for_others() {
    let more = client(&format!("{HEAD}public = true"));
    let text = format!("allowed_redirect_uris = [\"https://claude.ai/cb\"]\n{OK}{more}");
    assert!(
        Config::load(
            Some((Path::new("x"), text)),
            &BTreeMap::from([("SECRET".to_owned(), SECRET.to_owned())])
        )
        .is_ok()
    );
}

#[test]
fn hosts_of_published_clients_are_names_and_nothing_else() {
    let hosts = |host: &str| format!("[client_documents]\nallowed_hosts = [\"{host}\"]");
    assert!(load(&hosts("claude.ai")).is_ok());
    for host in [
        "https://claude.ai",
        "claude.ai/",
        "*.claude.ai",
        "127.0.0.1",
        "localhost",
        "claude.ai:443",
        "",
    ] {
        assert_eq!(problem(&hosts(host)).0, "client_documents.allowed_hosts", "{host}");
    }
}

/// CIMD-24: a server that others can reach must not read anything from its own machine.
#[test]
fn ci_01_loopback_hosts_are_refused_unless_we_are_on_loopback_ourselves() {
    const KEY: &str = "client_documents.unsafe_loopback_hosts";
    let pem = std::env::temp_dir().join("portcullis-config-authority.pem");
    std::fs::write(&pem, "pem").unwrap();
    let section = |address: &str| {
        format!(
            "[client_documents]\nunsafe_loopback_hosts = {{ \"client.example\" = \"{address}\" }}\nunsafe_loopback_authority = {:?}",
            pem.to_str().unwrap()
        )
    };
    let local = |more: &str| {
        let text = OK.replace("https://mcp.example.com", "http://127.0.0.1:8000");
        let env = BTreeMap::from([("SECRET".to_owned(), SECRET.to_owned())]);
        Config::load(Some((Path::new("x"), format!("{text}\n{more}"))), &env)
    };

    assert_eq!(problem(&section("127.0.0.1:8443")).0, KEY);
    let only =
        format!("[client_documents]\nunsafe_loopback_authority = {:?}", pem.to_str().unwrap());
    assert_eq!(problem(&only).0, KEY);

    let loaded = local(&section("127.0.0.1:8443")).unwrap();
    assert_eq!(loaded.config.client_documents.loopback.hosts.len(), 1);
    assert!(loaded.warnings.iter().any(|warning| warning.contains(KEY)), "and said at start");
    for elsewhere in ["10.0.0.5:443", "8.8.8.8:443", "localhost:443", "x"] {
        let problems = local(&section(elsewhere)).unwrap_err().0;
        assert_eq!(problems[0].key, KEY, "{elsewhere}");
    }
    let _ = std::fs::remove_file(&pem);
}

#[test]
fn pkj_04_the_older_rule_of_audiences_is_warned_about() {
    let loaded = load("[client_assertions]\naccept_token_endpoint_audience = true").unwrap();
    assert!(loaded.config.accept_token_endpoint_audience);
    assert!(loaded.warnings[0].contains("RFC 10070"));
    assert!(!load("").unwrap().config.accept_token_endpoint_audience);
}
