//! Findings about the network path to the provider: address, proxy, http or https.

use axum::http::Response;
use serde_json::Value;

use super::super::Upstream;
use super::super::endpoints::{Carriage, ENDPOINTS, carriage};
use super::super::metadata::Metadata;
use super::{Findings, Severity, texts};
use crate::http_client::HttpError;

type ProbeResponse = Result<Response<Vec<u8>>, HttpError>;

impl Upstream {
    /// Sends the first request to the provider. `Err(None)`: a proxy on the way failed, and the findings
    /// already say so.
    pub(super) async fn first_answer(
        &self,
        url: &str,
        findings: &mut Findings,
    ) -> Result<Response<Vec<u8>>, Option<HttpError>> {
        let answer = self.get(url).await;
        self.tell_network(answer, url, findings).map_err(|()| None)?.map_err(Some)
    }

    /// Adds a finding: the path that requests take, or how the proxy failed. Returns `Err` if the proxy
    /// failed, so that the request did not reach the provider.
    pub(super) fn tell_network(
        &self,
        answer: ProbeResponse,
        url: &str,
        findings: &mut Findings,
    ) -> Result<ProbeResponse, ()> {
        const PROBE: &str = "network";
        if let Err(HttpError::Proxy(failed)) = &answer {
            findings.hint(PROBE, Severity::Failed, failed.to_string(), failed.hint());
            return Err(());
        }
        let config = &self.0.config;
        let asked_at = match &config.discovery_url {
            Some(at) => format!("the provider is asked at {at} and calls itself {}", config.issuer),
            None => format!("the provider is asked at its own address, {url}"),
        };
        let way = match self.0.http.proxy_for(url) {
            Some(proxy) => format!("through the proxy {proxy}"),
            None => "directly, through no proxy".to_owned(),
        };
        findings.add(PROBE, Severity::Ok, format!("{asked_at}; {way}"));
        Ok(answer)
    }

    /// Returns the hint for a discovery document that names another issuer.
    pub(super) fn hint_for_another_issuer(&self, stated: &str, asked_at: &str) -> String {
        let config = &self.0.config;
        if stated.trim_end_matches('/') == config.issuer.trim_end_matches('/') {
            let slash =
                "only a slash at the end differs; write the issuer exactly as the provider does";
            return slash.to_owned();
        }
        let issuer = if config.preset.keys.iter().any(|key| key.name == "issuer") {
            format!("issuer = {stated:?}")
        } else {
            let keys: Vec<&str> = config.preset.keys.iter().map(|key| key.name).collect();
            format!("{} so that the issuer is {stated:?}", keys.join(" and "))
        };
        let exactly = "write the issuer exactly as the provider does";
        if config.discovery_url.is_some() || stated.is_empty() {
            return format!(
                "{exactly}: {issuer}; discovery_url says only where it is asked. A host name setting of the provider changes what it calls itself"
            );
        }
        format!(
            "{exactly}: {issuer}. If this machine reaches it at this address alone, add discovery_url = {asked_at:?}. A custom domain or host name setting of the provider changes what it calls itself"
        )
    }

    /// Reports which endpoints use https and which http. Whether they exist was checked when the document was
    /// read.
    pub(super) fn probe_endpoints(
        &self,
        document: &Value,
        metadata: &Metadata,
        findings: &mut Findings,
    ) {
        const PROBE: &str = "endpoints";
        let (mut loopback, mut in_the_clear) = (false, Vec::new());
        for (name, asker) in ENDPOINTS {
            let travels = metadata
                .endpoint(name)
                .and_then(|url| carriage(url, asker, self.0.config.allow_http));
            match travels {
                Some(Carriage::Https) | None => {}
                Some(Carriage::Loopback) => loopback = true,
                Some(Carriage::Http) => in_the_clear.push(name),
            }
        }
        let methods = texts(&document["code_challenge_methods_supported"]);
        if !methods.is_empty() && !methods.contains(&"S256") {
            let found = "the provider does not list PKCE with S256, which we always send";
            findings.add(PROBE, Severity::Warning, found);
            return;
        }
        let over = match (loopback, in_the_clear.is_empty()) {
            (false, true) => "over https".to_owned(),
            (true, true) => "over http on this machine".to_owned(),
            (_, false) => {
                format!("in the clear, over http (allow_http): {}", in_the_clear.join(", "))
            }
        };
        findings.add(PROBE, Severity::Ok, format!("all there, {over}"));
    }
}

/// Returns the hint for an administrator about a request that failed.
pub(super) fn hint_for(error: &HttpError) -> String {
    match error {
        HttpError::Proxy(failed) => failed.hint(),
        HttpError::Connection(cause) if cause.contains("certificate") => {
            "let this machine trust who signed the certificate: put the authority into the system's store, or name its file in SSL_CERT_FILE; a proxy that opens TLS has an authority of its own".to_owned()
        }
        _ => "check the address, and that this machine may reach it".to_owned(),
    }
}
