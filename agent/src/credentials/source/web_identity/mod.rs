//! STS: `AssumeRoleWithWebIdentity`, once, without retries.
//!
//! Owns: the SDK client and the translation between its types and ours. Must not know: who waits for the
//! answer, or why a pod has this role (`association`).
//!
//! The call is not signed: the token is all that STS asks for, and the agent's own credentials have no part
//! in it.

pub mod classify;
mod endpoint;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sts::Client;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::timeout::TimeoutConfig;
use aws_sdk_sts::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};
use aws_sdk_sts::operation::RequestId;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityOutput;
use aws_sdk_sts::types::Credentials as IssuedByAws;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use self::classify::classify;
use self::endpoint::instead_of_regional;
use super::call::{Words, app_name, dated, translate, within};
use super::in_region::InRegion;
use super::obstacle::{Obstacle, Service, obstacle};
use super::{JudgedToken, Refusal, SourceError, TimeLimits, Unavailable};
use crate::aws::answer_log::{About, AnswerLog, Asked, No};
use crate::aws::reach::Reach;
use crate::aws::region::AwsRegion;
use crate::aws::time::AwsTime;
use crate::clock::Clock;
use crate::config::{Sts, Upstream};
use crate::credentials::issued::{Grant, GrantOrigin, Issued};
use crate::credentials::receipt::{self, Receipt};
use crate::outgoing::Carrier;
use crate::secret::Secret;
use crate::words::{self, CallSecrets};
use crate::workload::{PresentedToken, WebIdentity};

/// How its answers are read.
const SERVICE: Service = Service { name: "STS", classify };

/// Asks STS.
#[derive(Clone, Debug)]
pub struct StsWebIdentity {
    regional: InRegion<Regional>,
    /// The URL that replaces both endpoints.
    configured: Option<Arc<str>>,
    /// FIPS or dual stack, which only the regional endpoint has.
    has_variant: bool,
    time: AwsTime,
    reach: Reach,
}

/// What there is from when the region is known.
struct Regional {
    client: Client,
    region: Arc<str>,
}

/// What a client is made of.
pub struct Parts<'a> {
    /// The region to reach unless there is an endpoint.
    pub region: AwsRegion,
    /// Which endpoint.
    pub sts: &'a Sts,
    /// The way there.
    pub upstream: &'a Upstream,
    /// The log of AWS's noes.
    pub answer_log: AnswerLog,
    /// The HTTP client: the simulation's seam.
    pub http_client: SharedHttpClient,
    /// The clock.
    pub clock: &'a Clock,
}

impl StsWebIdentity {
    /// A client for one region. Nothing is connected yet.
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { region, sts, upstream, answer_log, http_client, clock } = parts;
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .use_fips(upstream.use_fips)
            .use_dual_stack(sts.use_dual_stack)
            .http_client(http_client)
            .sleep_impl(TokioSleep::new())
            .time_source(clock.clone())
            // The flight retries, within its budget; retries in here would be out of its sight.
            .retry_config(RetryConfig::disabled())
            // Each attempt has a limit of its own, and a connection in the making outlives it.
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_app_name(app_name());
        let regional = InRegion::new(region, move |region| Regional {
            client: Client::from_conf(config.clone().region(Region::new(region.to_owned())).build()),
            region: region.into(),
        });
        Self {
            regional,
            configured: sts.endpoint.as_deref().map(Into::into),
            has_variant: upstream.use_fips || sts.use_dual_stack,
            time: AwsTime::new(clock.clone()),
            reach: Reach::new(answer_log, clock.clone()),
        }
    }

    /// Exchanges a pod's token for credentials of a role: one attempt, which is given up at its limits.
    ///
    /// # Errors
    /// [`SourceError`], classified by status and code.
    pub async fn fetch(
        &self,
        wanted: &WebIdentity,
        presented: &PresentedToken,
        limits: TimeLimits,
    ) -> Result<Issued, SourceError> {
        let Regional { client, region } = self.regional.get()?;
        let endpoint =
            instead_of_regional(wanted.endpoint, region, self.configured.as_deref(), self.has_variant);
        let whom = whom(region, endpoint.as_deref());
        let call = client
            .assume_role_with_web_identity()
            .role_arn(wanted.role.as_str())
            .role_session_name(&*wanted.session_name)
            .web_identity_token(presented.token.reveal());
        let (observer, carrier) = (self.time.observer(), Carrier::new());
        let carried_by = carrier.clone();
        let mut at = aws_sdk_sts::Config::builder();
        at.set_endpoint_url(endpoint);
        let call = call
            .customize()
            .interceptor(observer.clone())
            .mutate_request(move |request| request.add_extension(carried_by.clone()))
            .config_override(at);
        let sent = within(limits, &carrier, call.send()).await;
        let secrets = || CallSecrets::new([presented.token.reveal()]);
        let brought =
            sent.as_ref().map(|sent| sent.as_ref().map(|output| whole_credentials(output).is_some()));
        match obstacle(brought, &carrier, &SERVICE, presented.into()) {
            Obstacle::None => {
                let failure = sent.as_ref().and_then(|sent| sent.as_ref().err());
                let words = failure.and_then(|failure| Words::of(failure, &secrets()));
                self.answered(words.as_ref(), presented.into(), &whom);
            }
            Obstacle::Unsent => {}
            Obstacle::OnTheWay(cause) => self.reach.failed(&whom, &cause),
        }
        match sent {
            None => Err(SourceError::Unavailable(Unavailable::Timeout)),
            Some(Err(error)) => {
                let error = translate(&error, presented.into(), &secrets(), classify);
                Err(asked_of(&whom, dated(error, observer.answered_at())))
            }
            Some(Ok(output)) => issued(wanted, &output, observer.answered_at()),
        }
    }

    /// Whether it answers.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// STS has answered. What it says of trouble of its own is for admins: a pod can only try again.
    fn answered(&self, words: Option<&Words<'_>>, judged: JudgedToken, whom: &Arc<str>) {
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
            asked: &Asked { whom: Arc::clone(whom), signer: None },
        });
    }
}

/// Who is asked, for people.
fn whom(region: &str, endpoint: Option<&str>) -> Arc<str> {
    match endpoint {
        Some(url) => format!("STS at {url}").into(),
        None => format!("STS in {region}").into(),
    }
}

/// A refusal says how it came about: whom we asked.
fn asked_of(whom: &Arc<str>, error: SourceError) -> SourceError {
    match error {
        SourceError::Refused(refusal) => {
            let asked = Asked { whom: Arc::clone(whom), signer: None };
            SourceError::Refused(Refusal { asked: Some(Arc::new(asked)), ..refusal })
        }
        other @ (SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_)) => other,
    }
}

/// The credentials in an answer, if no part of them is missing: the SDK reads what is missing as an empty
/// text.
fn whole_credentials(output: &AssumeRoleWithWebIdentityOutput) -> Option<&IssuedByAws> {
    let credentials = output.credentials()?;
    let parts = [credentials.access_key_id(), credentials.secret_access_key(), credentials.session_token()];
    parts.iter().all(|part| !part.is_empty()).then_some(credentials)
}

fn issued(
    wanted: &WebIdentity,
    output: &AssumeRoleWithWebIdentityOutput,
    answered_at: Option<SystemTime>,
) -> Result<Issued, SourceError> {
    let unreadable = || SourceError::Unavailable(Unavailable::Unreadable);
    let credentials = whole_credentials(output).ok_or_else(unreadable)?;
    let seconds = u64::try_from(credentials.expiration().secs()).map_err(|_| unreadable())?;
    let session = output.assumed_role_user().map(|user| user.arn());
    // The session's name is what CloudTrail shows: here the two can be brought together.
    tracing::debug!(role = %wanted.role, session, "credentials issued");
    Ok(Issued {
        access_key_id: credentials.access_key_id().to_owned(),
        secret_access_key: Secret::new(credentials.secret_access_key().to_owned()),
        session_token: Secret::new(credentials.session_token().to_owned()),
        // The fraction is cut off: ending a moment early is safe, ending late is not.
        expiration: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(unreadable)?,
        answered_at,
        grant: Grant::new(GrantOrigin::Role(wanted.role.clone()), session.unwrap_or_default()),
        receipt: receipt_of(output, credentials),
    })
}

/// The names in an answer, for those who look for it in AWS's own records.
fn receipt_of(output: &AssumeRoleWithWebIdentityOutput, credentials: &IssuedByAws) -> Receipt {
    // `system:serviceaccount:<namespace>:<name>`: the `sub` of the token that STS has verified.
    let subject = output
        .subject_from_web_identity_token()
        .and_then(|subject| subject.strip_prefix("system:serviceaccount:")?.split_once(':'));
    Receipt {
        access_key_id: receipt::access_key_id(credentials.access_key_id()),
        session_arn: output.assumed_role_user().and_then(|user| receipt::name(user.arn())),
        association_arn: None,
        namespace: subject.and_then(|(namespace, _)| receipt::name(namespace)),
        service_account: subject.and_then(|(_, name)| receipt::name(name)),
        request_id: output.request_id().and_then(receipt::request_id),
    }
}
