//! A refusal, in the one shape that all sources share.
//!
//! Owns: its class, and AWS's own words. Must not know: what follows from it. Policies look at the class;
//! people read the words.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::aws::answer_log::{About, Asked, No};
use crate::words;
use crate::workload::{PresentedToken, TokenDigest};

/// A refusal that is about the pod, its token or its role.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What it means.
    pub class: RefusalClass,
    /// AWS's code for it, of a closed set.
    pub code: &'static str,
    /// AWS's sentence, shortened and without control characters.
    pub message: Arc<str>,
    /// AWS's request id, for a support case.
    pub request_id: Option<Arc<str>>,
    /// How AWS was asked. `None`: the agent has judged by itself, and these are not AWS's words.
    pub asked: Option<Arc<Asked>>,
    /// The token that was judged. The pod may have a newer one by now, of which this says nothing.
    pub judged: Arc<JudgedToken>,
    /// When AWS refused, by its own clock, if it said so.
    pub answered_at: Option<SystemTime>,
}

/// What a refusal means, whichever source gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalClass {
    /// Nothing gives this service account a role, or there is no such cluster
    /// ([`Refusal::blames_cluster`]).
    NoAssociation,
    /// There is a role, and it cannot be assumed for this pod.
    RoleNotAssumable,
    /// The pod's token has expired.
    TokenExpired,
    /// The pod's token is not one that the source accepts.
    TokenInvalid,
    /// The request is wrong.
    BadRequest,
}

impl RefusalClass {
    /// Whether it is about the token alone: a newer one of the same pod may fare better.
    pub const fn is_about_token(self) -> bool {
        match self {
            Self::TokenExpired | Self::TokenInvalid => true,
            Self::NoAssociation | Self::RoleNotAssumable | Self::BadRequest => false,
        }
    }
}

/// Which token a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JudgedToken {
    /// Its digest.
    pub digest: TokenDigest,
    /// Its `exp`.
    pub expires: SystemTime,
}

impl Refusal {
    /// A refusal with AWS's own sentence, made fit for one line.
    pub fn new(
        class: RefusalClass,
        code: &'static str,
        message: &str,
        request_id: Option<&str>,
        judged: JudgedToken,
    ) -> Self {
        let (message, request_id) = (words::one_line(message), words::request_id(request_id));
        Self { class, code, message, request_id, asked: None, judged: Arc::new(judged), answered_at: None }
    }

    /// Whether AWS's sentence is about the cluster that the agent names, and so about no pod.
    ///
    /// EKS Auth has one code for a missing association and a missing cluster; only its words tell them apart,
    /// and no document lists these. So only a sentence that begins with a missing cluster counts: "No cluster
    /// found for name: c", and not "No association found for service account s of namespace n in cluster c".
    /// Words that nobody has seen blame nobody: they would stop every update.
    pub fn blames_cluster(&self) -> bool {
        const MISSING: [&str; 3] = ["not found", "does not exist", "doesn't exist"];
        let message = self.message.to_ascii_lowercase();
        message.starts_with("no cluster ")
            || (message.starts_with("cluster") || message.starts_with("the cluster"))
                && MISSING.iter().any(|missing| message.contains(missing))
    }

    /// AWS's words with the request id, and with what was asked by whom.
    pub fn in_full(&self) -> impl fmt::Display + '_ {
        InFull(self)
    }

    /// The same, for admins. `None`: AWS was not asked.
    pub fn as_no(&self) -> Option<No<'_>> {
        let asked = self.asked.as_deref()?;
        let (message, request_id) = (&*self.message, self.request_id.as_deref());
        Some(No { about: About::Pod, status: None, code: self.code, message, request_id, asked })
    }
}

/// A refusal with all that an admin needs to find its cause.
struct InFull<'a>(&'a Refusal);

impl fmt::Display for InFull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        if let Some(id) = &self.0.request_id {
            write!(f, " (request id {id})")?;
        }
        match &self.0.asked {
            Some(asked) => write!(f, ", asked was {asked}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<&PresentedToken> for JudgedToken {
    fn from(presented: &PresentedToken) -> Self {
        Self { digest: presented.token.digest(), expires: presented.expires }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{JudgedToken, Refusal, RefusalClass};
    use crate::workload::TokenDigest;

    /// A refusal of this class, with a code and a sentence that do not matter.
    pub(crate) fn refusal(class: RefusalClass) -> Refusal {
        refusal_of_token(class, 0)
    }

    /// A refusal of a token that expires at this second of the epoch.
    pub(crate) fn refusal_of_token(class: RefusalClass, expires: u64) -> Refusal {
        let expires = UNIX_EPOCH + Duration::from_secs(expires);
        let judged = JudgedToken { digest: TokenDigest::of_bytes([0; 32]), expires };
        Refusal::new(class, "AccessDeniedException", "no", Some("r-1"), judged)
    }

    #[test]
    fn the_words_of_aws_become_one_short_line() {
        let judged = *refusal(RefusalClass::BadRequest).judged;
        let long_id = "i".repeat(129);
        let message = format!("a\nb{}", "x".repeat(1_000));
        let refusal = Refusal::new(RefusalClass::BadRequest, "C", &message, Some(&long_id), judged);
        assert!(refusal.message.starts_with("a b") && refusal.message.len() == 400);
        assert_eq!(refusal.request_id, None);
    }

    #[test]
    fn the_cluster_is_blamed_where_the_words_of_aws_begin_with_its_absence() {
        for (message, blames_cluster) in [
            ("No cluster found for name: sandbx.", true),
            ("Cluster not found", true),
            ("No cluster found for name: association-tests.", true),
            ("No association found for service account cart of namespace shop in cluster prod.", false),
            ("The cluster sandbx does not exist in us-west-2", true),
            ("Association not found", false),
            ("The service account a in cluster c is not associated with an IAM role.", false),
            ("No pod identity for service account a of cluster c.", false),
            ("Pod Identity is not available while the cluster is in state UPDATING.", false),
            ("Cluster c is being updated", false),
            ("Not found", false),
            ("", false),
        ] {
            let refusal = Refusal { message: message.into(), ..refusal(RefusalClass::NoAssociation) };
            assert_eq!(refusal.blames_cluster(), blames_cluster, "{message}");
        }
    }
}
