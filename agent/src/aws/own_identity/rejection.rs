//! A rejection of the agent's own credentials, in AWS's words.
//!
//! Owns: those words, and the sentence that admins read. Must not know: what follows from a rejection.

use std::fmt;
use std::sync::Arc;

use crate::aws::answer_log::Asked;
use crate::words;

/// What AWS said when it rejected who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status.
    pub status: u16,
    /// AWS's code, where its answer has one.
    pub code: Option<Arc<str>>,
    /// AWS's sentence, shortened.
    pub message: Arc<str>,
    /// AWS's request id, for a support case.
    pub request_id: Option<Arc<str>>,
}

impl Rejection {
    /// A rejection with AWS's own words. Of the message only the first line counts: where a signature does
    /// not match, AWS goes on with the canonical request, and that contains the session token (invariant 9).
    pub fn new(status: u16, code: Option<&str>, message: &str, request_id: Option<&str>) -> Self {
        let end = message.find("The Canonical String").unwrap_or(message.len());
        let said = message.get(..end).unwrap_or_default().lines().next().unwrap_or_default();
        Self {
            status,
            code: words::code(code),
            message: words::one_line(said.trim()),
            request_id: words::request_id(request_id),
        }
    }

    /// What rejections of one kind have in common.
    pub fn cause(&self) -> &str {
        self.code.as_deref().unwrap_or("without a code")
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.cause())?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request id {id})"),
            None => Ok(()),
        }
    }
}

/// A rejection, with the credentials that it is about and who was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedCall {
    /// Who was asked, and who signed.
    pub asked: Asked,
    /// What AWS said.
    pub rejection: Arc<Rejection>,
}

impl fmt::Display for RejectedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked: Asked { whom, signer }, rejection } = self;
        write!(f, "{whom} rejects the agent's own AWS credentials")?;
        signer.as_ref().map_or(Ok(()), |signer| write!(f, " ({signer})"))?;
        write!(f, ": {rejection}")
    }
}

#[cfg(test)]
mod tests {
    use super::Rejection;

    #[test]
    fn the_words_are_told_and_a_canonical_request_is_not() {
        let sentence = "The request signature we calculated does not match. Consult the documentation.";
        let request = "The Canonical String for this request should have been\n'POST\nx-amz-security-token:\
                       planted";
        let message = format!("{sentence}\n\n{request}");
        let told = Rejection::new(403, Some("InvalidSignatureException"), &message, Some("r-1")).to_string();
        assert_eq!(told, format!("403 InvalidSignatureException: {sentence} (request id r-1)"));
        let one_line = message.replace('\n', " ");
        let told = Rejection::new(403, Some("InvalidSignatureException"), &one_line, None).to_string();
        assert!(!told.contains("planted"), "{told}");
    }

    #[test]
    fn a_rejection_without_words_has_a_status() {
        assert_eq!(Rejection::new(403, None, "", None).to_string(), "403 without a code");
        let odd = Rejection::new(403, Some("a b"), "", Some("x\ny"));
        assert_eq!((odd.code, odd.request_id), (None, None));
    }
}
