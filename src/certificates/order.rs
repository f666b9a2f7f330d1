//! Orders a certificate (RFC 8555), and proves the control of its names by TLS-ALPN-01 (RFC 8737).
//!
//! The ACME server connects to port 443 of each name, and reaches any of the replicas. So the answers are in the
//! database before it is asked to come.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::transport::AcmeTransport;
use super::{ANSWERS_STALE, external_id, id_of};
use crate::clock::Clock;
use crate::config::{AcmeConfig, CertificateRefused, Proxies};
use crate::http_client::HttpClient;
use crate::storage::{CertificateText, ChallengeAnswer, Storage, StorageError};

/// Longest wait for one answer of the ACME server: 30 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait until it has validated the names, and again until it has issued the certificate: 90 s.
const POLLED_FOR: Duration = Duration::from_secs(90);
/// An answer to a challenge is kept for 10 minutes, longer than an order takes.
const ANSWERED_FOR: Duration = Duration::from_mins(10);
/// Longest reason that is kept of a failure, in bytes.
const LONGEST_REASON: usize = 600;

#[derive(Debug, thiserror::Error)]
pub(super) enum OrderFailed {
    #[error(transparent)]
    Acme(#[from] Error),
    #[error("a key or a request cannot be created: {0}")]
    NotMade(#[from] rcgen::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the ACME server does not offer to validate {0} by TLS-ALPN-01")]
    NotOffered(String),
    #[error("the ACME server could not validate the names: {0}")]
    NotValidated(String),
    #[error("the certificate that was issued {0}")]
    Unusable(#[from] CertificateRefused),
    #[error("it took longer than {0:?}")]
    TooSlow(Duration),
}

impl OrderFailed {
    /// Returns the reason, cut if it is long: the ACME server wrote some of it.
    pub(super) fn reason(&self) -> String {
        let mut reason: String =
            self.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        reason
    }
}

/// What an order needs.
pub(super) struct CertificateOrder<'a> {
    pub(super) acme: &'a AcmeConfig,
    pub(super) proxies: &'a Proxies,
    pub(super) storage: &'a Storage,
    pub(super) clock: &'a Clock,
}

impl CertificateOrder<'_> {
    /// Orders a certificate and waits until it is issued.
    pub(super) async fn run(&self) -> Result<CertificateText, OrderFailed> {
        let mut order = self.begin().await?;
        self.answer_challenges(&mut order).await?;
        let polling = RetryPolicy::new().timeout(POLLED_FOR);
        match order.poll_ready(&polling).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(OrderFailed::NotValidated(reasons(&mut order).await)),
            Err(Error::Api(problem)) => {
                let reasons = reasons(&mut order).await;
                return Err(OrderFailed::NotValidated(format!("{problem}; {reasons}")));
            }
            Err(error) => return Err(error.into()),
        }
        let mut params = CertificateParams::new(self.acme.domains.clone())?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let request = params.serialize_request(&key)?;
        order.finalize_csr(request.der()).await?;
        let chain = order.poll_certificate(&polling).await?;
        Ok(CertificateText { chain, key: key.serialize_pem() })
    }

    /// Begins the order, with the account that is stored. If the server does not know it any more, with another one.
    async fn begin(&self) -> Result<Order, OrderFailed> {
        let names: Vec<Identifier> =
            self.acme.domains.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let wanted = NewOrder::new(&names);
        if let Some(account) = self.known_account().await? {
            match account.new_order(&wanted).await {
                Err(Error::Api(problem)) if is_unknown_account(problem.r#type.as_deref()) => {}
                begun => return Ok(begun?),
            }
        }
        Ok(self.new_account().await?.new_order(&wanted).await?)
    }

    fn account_id(&self) -> String {
        let contact = self.acme.contact.as_deref().unwrap_or_default();
        let external = external_id(self.acme);
        id_of([self.acme.directory.as_str(), contact].into_iter().chain(external.as_deref()))
    }

    fn transport(&self) -> Box<AcmeTransport> {
        let authority = self.acme.authority.as_deref();
        Box::new(AcmeTransport(HttpClient::trusting(ANSWER_TIMEOUT, self.proxies, authority)))
    }

    async fn known_account(&self) -> Result<Option<Account>, OrderFailed> {
        let Some(stored) = self.storage.acme_account(&self.account_id()).await? else {
            return Ok(None);
        };
        let builder = Account::builder_with_http(self.transport());
        Ok(Some(builder.from_credentials(stored).await?))
    }

    async fn new_account(&self) -> Result<Account, OrderFailed> {
        let contact = self.acme.contact.as_ref().map(|contact| format!("mailto:{contact}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = Account::builder_with_http(self.transport());
        let directory = self.acme.directory.clone();
        let bound = self.acme.external_account.as_ref().map(|external| {
            ExternalAccountKey::new(external.key_id.clone(), external.hmac_key.expose())
        });
        let (account, credentials) = builder.create(&wanted, directory, bound.as_ref()).await?;
        self.storage.store_acme_account(&self.account_id(), &credentials).await?;
        Ok(account)
    }

    /// Stores the answers to all challenges, waits until every replica finds them, and asks the server to come.
    async fn answer_challenges(&self, order: &mut Order) -> Result<(), OrderFailed> {
        let mut answers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let domain = authorization.identifier().to_string();
            let Some(challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
                return Err(OrderFailed::NotOffered(domain));
            };
            let proven = challenge.key_authorization();
            let proof = proven.digest();
            answers
                .push((id_of(std::iter::once(domain.as_str())), answer(domain, proof.as_ref())?));
        }
        if answers.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        self.storage.store_challenges(&answers, now, now.plus(ANSWERED_FOR)).await?;
        tokio::time::sleep(ANSWERS_STALE * 2).await;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) {
                challenge.set_ready().await?;
            }
        }
        Ok(())
    }
}

fn is_unknown_account(kind: Option<&str>) -> bool {
    kind == Some("urn:ietf:params:acme:error:accountDoesNotExist")
}

/// Makes the certificate that answers a challenge.
fn answer(domain: String, proof: &[u8]) -> Result<ChallengeAnswer, rcgen::Error> {
    let mut params = CertificateParams::new(vec![domain.clone()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(proof)];
    let key = KeyPair::generate()?;
    let chain = params.self_signed(&key)?.pem();
    Ok(ChallengeAnswer { domain, chain, key: key.serialize_pem() })
}

/// Returns what the ACME server says of each name.
async fn reasons(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let domain = state.identifier().to_string();
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(|error| format!("{domain}: {error}")));
    }
    if reasons.is_empty() { "it gave no reason".to_owned() } else { reasons.join("; ") }
}
