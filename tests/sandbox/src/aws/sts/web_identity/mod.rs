//! `AssumeRoleWithWebIdentity`: credentials of a role for the holder of a token.
//!
//! Owns: the order of its judgement: parameters, session policy, region, token, provider, key, audience,
//! times, trust, duration; and the answer. Must not know: how trust is judged.

mod arguments;
mod refusal;

use std::time::{Duration, SystemTime};

use self::arguments::Arguments;
use self::refusal::{Code, Refused};
use super::{WEB_IDENTITY, query};
use crate::aws::iam::arn::RoleArn;
use crate::aws::iam::context::Context;
use crate::aws::iam::oidc_provider::OidcProvider;
use crate::aws::iam::role::Role;
use crate::aws::iam::trust::Principal;
use crate::aws::issued::{AwsCredentials, Bearer, Holder};
use crate::aws::session::Session;
use crate::clock;
use crate::cluster::pod::PodSpec;
use crate::cluster::token::{self, Claims};
use crate::http::message::{Received, Reply};
use crate::world::World;

/// The pod that a request's token names, unverified.
pub(super) fn pod(request: &Received) -> Option<PodSpec> {
    token::parse(&query::parameter(request, "WebIdentityToken")?)?.claims.pod()
}

/// Judges a request, and answers it.
pub(super) fn answer(world: &World, request: &Received) -> Reply {
    match assume(world, request) {
        Ok(granted) => granted.reply(),
        Err(refused) => refused.reply(),
    }
}

/// What is answered to a token that is trusted.
struct Granted {
    session: Session,
    credentials: AwsCredentials,
    subject: String,
    audience: String,
    provider_arn: String,
    packed_policy_percent: usize,
}

/// A token that the account's provider vouches for.
struct Verified {
    claims: Claims,
    provider_arn: String,
    /// The one of its audiences that the provider takes.
    audience: String,
}

fn assume(world: &World, request: &Received) -> Result<Granted, Refused> {
    let arguments = Arguments::parse(query::parameters(request))?;
    let packed_policy_percent = arguments.packed_policy_percent()?;
    let role_arn = arguments.role()?;
    if world.switches.lock().sts_region_disabled {
        let account = role_arn.account;
        return Err(Refused::new(
            Code::RegionDisabled,
            format!(
                "STS is not activated in this region for account:{account}. Your account administrator can \
                 activate STS in this region using the IAM Console."
            ),
        ));
    }
    let verified = verify(world, &role_arn, &arguments.token)?;
    let role = trusted_role(world, &arguments, &verified)?;
    if arguments.duration > role.max_session_duration {
        let text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(Refused::new(Code::ValidationError, text));
    }
    let Verified { claims, provider_arn, audience } = verified;
    let bearer = claims.pod().map_or_else(|| Bearer::Subject(claims.sub.clone()), Bearer::Pod);
    let Arguments { role_arn, session_name, policy, duration, .. } = arguments;
    // A web identity has no session tags but those in its token, and Kubernetes puts none there.
    let session = Session { role_arn, name: session_name, tags: [].into(), policy };
    let holder = Holder { bearer, session: session.clone() };
    let credentials = world.issued.mint(holder, Duration::from_secs(duration));
    Ok(Granted { session, credentials, subject: claims.sub, audience, provider_arn, packed_policy_percent })
}

/// The token: issuer, key, audience and times.
fn verify(world: &World, role: &RoleArn<'_>, token: &str) -> Result<Verified, Refused> {
    let invalid = |text: &str| Refused::new(Code::InvalidIdentityToken, text);
    let parsed = token::parse(token).ok_or_else(|| {
        invalid(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        )
    })?;
    let issuer = &parsed.claims.iss;
    let provider_arn = OidcProvider::arn_beside(role, issuer);
    let provider = world
        .iam
        .oidc_provider(&provider_arn)?
        .ok_or_else(|| invalid(&format!("No OpenIDConnect provider found in your account for {issuer}")))?;
    // Of all issuers in the world, only the cluster's own can be asked for its keys.
    if *issuer != world.issuer || !parsed.names_one_of(&world.keys) {
        return Err(invalid(
            "Couldn't retrieve verification key from your identity provider,  please reference \
             AssumeRoleWithWebIdentity documentation for requirements",
        ));
    }
    if !parsed.signed_by_one_of(&world.keys) {
        return Err(invalid("Token signature is not valid"));
    }
    let is_taken = |audience: &&String| provider.client_ids.contains(audience);
    let audience = parsed
        .claims
        .aud
        .iter()
        .find(is_taken)
        .cloned()
        .ok_or_else(|| invalid("Incorrect token audience"))?;
    check_times(&parsed.claims, world.clock.now())?;
    Ok(Verified { claims: parsed.claims, provider_arn, audience })
}

fn check_times(claims: &Claims, now: SystemTime) -> Result<(), Refused> {
    if claims.expired_at(now) {
        let (now, expiration) = (clock::unix_seconds(now), claims.exp);
        let text = format!(
            "Token expired: current date/time {now} must be before the expiration date/time {expiration}"
        );
        return Err(Refused::new(Code::ExpiredToken, text));
    }
    if claims.valid_yet_at(now) {
        Ok(())
    } else {
        Err(Refused::new(Code::InvalidIdentityToken, "Token is not valid yet"))
    }
}

/// The role, if there is one and its trust policy names this token.
fn trusted_role(world: &World, arguments: &Arguments, verified: &Verified) -> Result<Role, Refused> {
    let issuer = OidcProvider::without_scheme(&verified.claims.iss);
    let context = Context::default()
        .with(&format!("{issuer}:sub"), &verified.claims.sub)
        .with(&format!("{issuer}:aud"), &verified.audience)
        .with("sts:RoleSessionName", &arguments.session_name);
    let principal = Principal::Federated(&verified.provider_arn);
    let action = format!("sts:{WEB_IDENTITY}");
    let role = world.iam.role(&arguments.role_arn)?;
    role.filter(|role| role.trusts(principal, &[&action], &context))
        .ok_or_else(|| Refused::new(Code::AccessDenied, format!("Not authorized to perform {action}")))
}

impl Granted {
    fn reply(&self) -> Reply {
        let element = query::element;
        let optional = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let credentials = &self.credentials;
        let expiration = credentials.expires_at.map(clock::rfc3339).unwrap_or_default();
        let credentials = element("AccessKeyId", &credentials.access_key_id)
            + &element("SecretAccessKey", &credentials.secret_access_key)
            + &element("SessionToken", &optional(credentials.session_token.as_deref()))
            + &element("Expiration", &expiration);
        let user = element("AssumedRoleId", &self.session.user_id()) + &element("Arn", &self.session.arn());
        let members = element("SubjectFromWebIdentityToken", &self.subject)
            + &element("Audience", &self.audience)
            + &format!("<AssumedRoleUser>{user}</AssumedRoleUser><Credentials>{credentials}</Credentials>")
            + &element("Provider", &self.provider_arn)
            + &element("PackedPolicySize", &self.packed_policy_percent.to_string());
        query::result(WEB_IDENTITY, &members)
    }
}
