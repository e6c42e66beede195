//! EKS Auth: `AssumeRoleForPodIdentity`, once, without retries.
//!
//! Owns: the SDK client and the translation between its types and ours. Must not know: who waits for the
//! answer.

pub mod classify;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_eksauth::Client;
use aws_sdk_eksauth::config::retry::RetryConfig;
use aws_sdk_eksauth::config::timeout::TimeoutConfig;
use aws_sdk_eksauth::config::{
    BehaviorVersion, IdentityCache, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_eksauth::operation::RequestId;
use aws_sdk_eksauth::operation::assume_role_for_pod_identity::AssumeRoleForPodIdentityOutput;
use aws_sdk_eksauth::types::Credentials as IssuedByAws;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::aws::answer_log::{About, Asked, No};
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::rejection::{RejectedCall, Rejection};
use crate::aws::own_identity::{OwnIdentity, SigningCredentials};
use crate::aws::reach::Reach;
use crate::aws::region::AwsRegion;
use crate::aws::time::AwsTime;
use crate::clock::Clock;
use crate::config::Upstream;
use crate::credentials::issued::{Grant, GrantOrigin, Issued};
use crate::credentials::receipt::{self, Receipt};
use crate::credentials::source::call::{Words, app_name, dated, translate, within};
use crate::credentials::source::eks_auth::classify::classify;
use crate::credentials::source::in_region::InRegion;
use crate::credentials::source::obstacle::{Obstacle, Service, obstacle};
use crate::credentials::source::{
    JudgedToken, OwnIdentityFault, Refusal, SourceError, TimeLimits, Unavailable,
};
use crate::outgoing::Carrier;
use crate::secret::Secret;
use crate::words::{self, CallSecrets};
use crate::workload::PresentedToken;

/// How its answers are read.
const SERVICE: Service = Service { name: "EKS Auth", classify };

/// Asks EKS Auth.
#[derive(Clone, Debug)]
pub struct EksAuth {
    regional: InRegion<Regional>,
    cluster: Arc<str>,
    own: OwnIdentity,
    details: SentDetails,
    time: AwsTime,
    reach: Reach,
}

/// What there is from when the region is known.
struct Regional {
    client: Client,
    /// Who is asked, for people.
    whom: Arc<str>,
}

/// What a client is made of.
pub struct Parts<'a> {
    /// The cluster that the associations belong to.
    pub cluster: &'a str,
    /// The region to sign for, and to reach unless there is an endpoint.
    pub region: AwsRegion,
    /// The way there.
    pub upstream: &'a Upstream,
    /// Who signs.
    pub own: OwnIdentity,
    /// What is said of the node.
    pub details: SentDetails,
    /// The HTTP client: the simulation's seam.
    pub http_client: SharedHttpClient,
    /// The clock.
    pub clock: &'a Clock,
}

impl EksAuth {
    /// A client for one cluster. Nothing is connected yet.
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { cluster, region, upstream, own, details, http_client, clock } = parts;
        let mut config = aws_sdk_eksauth::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .use_fips(upstream.use_fips)
            .http_client(http_client)
            .sleep_impl(TokioSleep::new())
            .time_source(clock.clone())
            // AWS's time, once it is known, is the clock's; a correction of the SDK's would be added to it.
            .disable_clock_skew_correction(true)
            // The flight retries, within its budget; retries in here would be out of its sight.
            .retry_config(RetryConfig::disabled())
            // Each attempt has a limit of its own, and a connection in the making outlives it.
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        // No credentials: each call brings its own, so that the answer is charged to those that signed it.
        config.set_app_name(app_name());
        if let Some(endpoint) = &upstream.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let cluster: Arc<str> = cluster.into();
        let named = Arc::clone(&cluster);
        let regional = InRegion::new(region, move |region| Regional {
            client: Client::from_conf(config.clone().region(Region::new(region.to_owned())).build()),
            whom: format!("EKS Auth in {region} (cluster {named})").into(),
        });
        Self {
            regional,
            cluster,
            reach: Reach::new(own.answer_log().clone(), clock.clone()),
            own,
            details,
            time: AwsTime::new(clock.clone()),
        }
    }

    /// Exchanges a pod's token for credentials: one attempt, which is given up at its limits.
    ///
    /// # Errors
    /// [`SourceError`], classified by status and code.
    pub async fn fetch(&self, presented: &PresentedToken, limits: TimeLimits) -> Result<Issued, SourceError> {
        // Both, so that neither is looked for only after the other is there.
        let (regional, signing) = (self.regional.get(), self.own.sign());
        let Regional { client, whom } = regional?;
        let Some(signing) = signing else {
            // Nothing to sign with: asking would only blame the pod's request for it.
            return Err(SourceError::OwnIdentity(OwnIdentityFault::Missing));
        };
        let call = client
            .assume_role_for_pod_identity()
            .cluster_name(&*self.cluster)
            .token(presented.token.reveal())
            .set_eks_node_name(self.details.node_name())
            .set_instance_id(self.details.instance_id())
            .set_zone(self.details.zone_id());
        let (observer, carrier) = (self.time.observer(), Carrier::new());
        let carried_by = carrier.clone();
        let call = call
            .customize()
            .interceptor(observer.clone())
            .mutate_request(move |request| request.add_extension(carried_by.clone()))
            .config_override(signing_with(&signing));
        let sent = within(limits, &carrier, call.send()).await;
        let secrets = || secrets_of(presented, &signing);
        let brought =
            sent.as_ref().map(|sent| sent.as_ref().map(|output| whole_credentials(output).is_some()));
        match obstacle(brought, &carrier, &SERVICE, presented.into()) {
            Obstacle::None => {
                let failure = sent.as_ref().and_then(|sent| sent.as_ref().err());
                let words = failure.and_then(|failure| Words::of(failure, &secrets()));
                self.answered(words.as_ref(), presented.into(), whom, &signing);
            }
            Obstacle::Unsent => {}
            Obstacle::OnTheWay(cause) => self.reach.failed(whom, &cause),
        }
        let result = match sent {
            None => Err(SourceError::Unavailable(Unavailable::Timeout)),
            Some(Err(error)) => {
                let error = translate(&error, presented.into(), &secrets(), classify);
                Err(dated(error, observer.answered_at()))
            }
            Some(Ok(output)) => issued(&output, observer.answered_at()),
        };
        match &result {
            // A signature of another time says nothing of the credentials that made it; the answer has just
            // taught the clock.
            Err(SourceError::OwnIdentity(OwnIdentityFault::Rejected(_)))
                if observer.was_signed_untimely() => {}
            Err(SourceError::OwnIdentity(OwnIdentityFault::Rejected(rejection))) => {
                self.own.rejected(&signing, whom, rejection);
            }
            Ok(_) | Err(SourceError::Refused(_)) => self.own.accepted(&signing),
            Err(
                SourceError::Throttled
                | SourceError::Unavailable(_)
                | SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown | OwnIdentityFault::Missing),
            ) => {}
        }
        result.map_err(|error| asked_with(whom, &signing, error))
    }

    /// Whether there is a region to call in, and anything to sign a call with.
    pub fn can_call(&self) -> bool {
        self.regional.is_known() && self.own.signer().is_some()
    }

    /// A rejection of who signs, with who that is and who was asked.
    pub fn rejected_with(&self, rejection: Arc<Rejection>) -> RejectedCall {
        // Who rejects has been asked, so its name is made.
        let whom = self.regional.made().map_or_else(|| SERVICE.name.into(), |made| Arc::clone(&made.whom));
        let asked = Asked { whom, signer: self.own.signer() };
        RejectedCall { asked, rejection }
    }

    /// Whether it answers.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// AWS has answered. What it says of trouble of its own is for admins: a pod can only try again.
    fn answered(
        &self,
        words: Option<&Words<'_>>,
        judged: JudgedToken,
        whom: &Arc<str>,
        signing: &SigningCredentials,
    ) {
        let trouble = words.map(Words::answer).filter(|answer| match classify(answer, judged) {
            SourceError::Throttled
            | SourceError::Unavailable(Unavailable::ServerError | Unavailable::IssuerUnreadable) => true,
            SourceError::Refused(_) | SourceError::OwnIdentity(_) | SourceError::Unavailable(_) => false,
        });
        let Some(answer) = trouble else { return self.reach.answered() };
        let (code, request_id) = (words::code(answer.code), words::request_id(answer.request_id));
        self.reach.answered_with(&No {
            about: About::Service,
            status: Some(answer.status),
            code: code.as_deref().unwrap_or_default(),
            message: &words::one_line(answer.message),
            request_id: request_id.as_deref(),
            asked: &Asked { whom: Arc::clone(whom), signer: Some(signing.signer()) },
        });
    }
}

/// A refusal says how it came about: whom we asked, and who we were.
fn asked_with(whom: &Arc<str>, signing: &SigningCredentials, error: SourceError) -> SourceError {
    match error {
        SourceError::Refused(refusal) => {
            let asked = Asked { whom: Arc::clone(whom), signer: Some(signing.signer()) };
            SourceError::Refused(Refusal { asked: Some(Arc::new(asked)), ..refusal })
        }
        other @ (SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_)) => other,
    }
}

/// The configuration of one call: who signs it. The credentials are handed over as they are; a cache could
/// only bring others.
fn signing_with(signing: &SigningCredentials) -> aws_sdk_eksauth::config::Builder {
    aws_sdk_eksauth::Config::builder()
        .credentials_provider(SharedCredentialsProvider::new(signing.credentials().clone()))
        .identity_cache(IdentityCache::no_cache())
}

/// What a call carries that nobody may see in the answer to it (invariant 9).
fn secrets_of<'a>(presented: &'a PresentedToken, signing: &'a SigningCredentials) -> CallSecrets<'a> {
    let signed = signing.credentials();
    let of_agent = [Some(signed.secret_access_key()), signed.session_token()];
    CallSecrets::new(of_agent.into_iter().flatten().chain([presented.token.reveal()]))
}

/// The credentials in an answer, if no part of them is missing. The SDK reads any JSON object as an answer:
/// what is missing in it is an empty text, and credentials without an end have ended in 1970.
fn whole_credentials(output: &AssumeRoleForPodIdentityOutput) -> Option<&IssuedByAws> {
    let credentials = output.credentials()?;
    let parts = [credentials.access_key_id(), credentials.secret_access_key(), credentials.session_token()];
    parts.iter().all(|part| !part.is_empty()).then_some(credentials)
}

fn issued(
    output: &AssumeRoleForPodIdentityOutput,
    answered_at: Option<SystemTime>,
) -> Result<Issued, SourceError> {
    let unreadable = || SourceError::Unavailable(Unavailable::Unreadable);
    let credentials = whole_credentials(output).ok_or_else(unreadable)?;
    let seconds = u64::try_from(credentials.expiration().secs()).map_err(|_| unreadable())?;
    let association = output.pod_identity_association().map(|association| association.association_id());
    let session = output.assumed_role_user().map(|user| user.arn());
    // The session's name is what CloudTrail shows: here the two can be brought together.
    tracing::debug!(association, session, "credentials issued");
    let origin = GrantOrigin::Association(association.unwrap_or_default().into());
    let grant = Grant::new(origin, session.unwrap_or_default());
    Ok(Issued {
        access_key_id: credentials.access_key_id().to_owned(),
        secret_access_key: Secret::new(credentials.secret_access_key().to_owned()),
        session_token: Secret::new(credentials.session_token().to_owned()),
        // The fraction is cut off: ending a moment early is safe, ending late is not.
        expiration: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(unreadable)?,
        answered_at,
        grant,
        receipt: receipt_of(output, credentials),
    })
}

/// The names in an answer, for those who look for it in AWS's own records.
fn receipt_of(output: &AssumeRoleForPodIdentityOutput, credentials: &IssuedByAws) -> Receipt {
    let subject = output.subject();
    let association = output.pod_identity_association();
    Receipt {
        access_key_id: receipt::access_key_id(credentials.access_key_id()),
        session_arn: output.assumed_role_user().and_then(|user| receipt::name(user.arn())),
        association_arn: association.and_then(|found| receipt::name(found.association_arn())),
        namespace: subject.and_then(|subject| receipt::name(subject.namespace())),
        service_account: subject.and_then(|subject| receipt::name(subject.service_account())),
        request_id: output.request_id().and_then(receipt::request_id),
    }
}
