//! Roles for tokens of an audience that this agent does not serve: nobody can be given them. Pure.
//!
//! Owns: which of them were said already, so that each is said once. Must not know: where it is said.
//!
//! Such a role is no mistake of the file or the annotation: another agent may serve it, or the flag may
//! follow a moment later. So nothing is refused for it, and a warning names the flag to look at.

use std::collections::HashSet;
use std::sync::Arc;

use super::annotations::MOST_ACCOUNTS;
use super::settings::RoleSettings;

/// More entries of one file are only counted.
const MOST_SAID: usize = 10;

/// The audiences that are served, and which roles for others were said.
#[derive(Debug)]
pub(super) struct UnservedAudiences {
    served: Vec<Arc<str>>,
    entries: HashSet<(String, Arc<str>)>,
    annotated: HashSet<(String, Arc<str>)>,
}

impl UnservedAudiences {
    pub(super) fn new<'a>(served: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            served: served.into_iter().map(Arc::from).collect(),
            entries: HashSet::new(),
            annotated: HashSet::new(),
        }
    }

    /// Whether tokens of this audience are served.
    pub(super) fn is_served(&self, audience: &str) -> bool {
        self.served.iter().any(|served| **served == *audience)
    }

    /// What is to be said of the entries of a role map that has just been read.
    pub(super) fn of_map<'a>(
        &mut self,
        entries: impl Iterator<Item = (String, &'a RoleSettings)>,
    ) -> Vec<String> {
        let unserved: HashSet<_> =
            entries.filter_map(|(name, settings)| self.unserved(name, settings)).collect();
        let mut new: Vec<_> = unserved.difference(&self.entries).collect();
        new.sort_unstable();
        let mut sentences: Vec<_> =
            new.iter().take(MOST_SAID).map(|of| self.sentence("role map entry", of)).collect();
        if new.len() > MOST_SAID {
            sentences.push(format!(
                "{} more entries of the role map are for such audiences",
                new.len() - MOST_SAID
            ));
        }
        self.entries = unserved;
        sentences
    }

    /// The same of a service account that was read; `None` of it: it has no role.
    pub(super) fn of_account(&mut self, account: &str, settings: Option<&RoleSettings>) -> Option<String> {
        let unserved = settings.and_then(|settings| self.unserved(account.to_owned(), settings));
        let is_known = unserved.as_ref().is_some_and(|unserved| self.annotated.contains(unserved));
        if is_known {
            return None;
        }
        self.annotated.retain(|(known, _)| known != account);
        let unserved = unserved?;
        let sentence = self.sentence("annotation of service account", &unserved);
        if self.annotated.len() < MOST_ACCOUNTS {
            self.annotated.insert(unserved);
        }
        Some(sentence)
    }

    fn unserved(&self, name: String, settings: &RoleSettings) -> Option<(String, Arc<str>)> {
        let audience = settings.audience.as_ref().filter(|audience| !self.is_served(audience))?;
        Some((name, Arc::clone(audience)))
    }

    fn sentence(&self, what: &str, (name, audience): &(String, Arc<str>)) -> String {
        let served = self.served.join(", ");
        format!(
            "{what} {name}: its role is for tokens of audience {audience}, and this agent serves {served}; \
             name the former by --web-identity-audience too, or nobody gets this role"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{MOST_SAID, UnservedAudiences};
    use crate::association::settings::RoleSettings;
    use crate::workload::{RoleArn, StsEndpoint};

    fn settings(audience: Option<&str>) -> RoleSettings {
        let role = RoleArn::read("arn:aws:iam::111122223333:role/r").unwrap();
        RoleSettings {
            role,
            audience: audience.map(Arc::from),
            endpoint: StsEndpoint::Regional,
            token_life: None,
        }
    }

    #[test]
    fn each_entry_is_said_once_and_again_when_it_was_mended_meanwhile() {
        let mut unserved = UnservedAudiences::new(["sts.amazonaws.com"]);
        let (foreign, own, any) =
            (settings(Some("vault")), settings(Some("sts.amazonaws.com")), settings(None));
        let mut said = |entries: &[(&str, &RoleSettings)]| {
            unserved.of_map(entries.iter().map(|(name, settings)| ((*name).to_owned(), *settings)))
        };
        let first = said(&[("ns/a", &foreign), ("ns/b", &own), ("ns/c", &any)]);
        let [sentence] = &first[..] else { panic!("{first:?}") };
        assert!(
            sentence.starts_with("role map entry ns/a: its role is for tokens of audience vault"),
            "{sentence}"
        );
        assert!(
            sentence.contains("serves sts.amazonaws.com;") && sentence.contains("--web-identity-audience")
        );
        assert!(said(&[("ns/a", &foreign)]).is_empty(), "said already");
        assert_eq!(said(&[("ns/a", &foreign), ("ns/b", &foreign)]).len(), 1);
        assert!(said(&[("ns/a", &own), ("ns/b", &foreign)]).is_empty());
        assert_eq!(said(&[("ns/a", &foreign), ("ns/b", &foreign)]).len(), 1, "once more");
        let many: Vec<_> = (0..25).map(|number| format!("many/{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), &foreign)).collect();
        let sentences = said(&many);
        assert_eq!(sentences.len(), MOST_SAID + 1);
        assert!(sentences[MOST_SAID].starts_with("15 more entries"), "{}", sentences[MOST_SAID]);
    }

    #[test]
    fn an_account_is_said_once_however_often_it_is_read() {
        let mut unserved = UnservedAudiences::new(["sts.amazonaws.com"]);
        let (foreign, own) = (settings(Some("vault")), settings(Some("sts.amazonaws.com")));
        let mut said = |settings| unserved.of_account("ns/sa", settings);
        assert!(said(Some(&own)).is_none());
        let sentence = said(Some(&foreign)).unwrap();
        assert!(sentence.starts_with("annotation of service account ns/sa: its role is for"), "{sentence}");
        assert!(said(Some(&foreign)).is_none());
        assert!(said(None).is_none());
        assert!(said(Some(&foreign)).is_some());
    }
}
