//! Pod identity associations: create, list, describe, update, delete.
//!
//! Owns: what each takes and answers. Must not know: who asks, nor how EKS Auth uses them.

use serde_json::{Value, json};

use super::input::{self, CreateAssociation, UpdateAssociation};
use super::page::page;
use super::query::Query;
use super::records::{Details, Records};
use super::refusal::{Code, Refused};
use super::{Eks, timestamp, without_nulls};
use crate::aws::associations::Association;
use crate::random;

/// The most that a cluster has: EKS's quota of 2024, since raised for some accounts.
const MOST: usize = 1_000;
/// Longest name of a namespace, a DNS label.
const NAMESPACE: usize = 63;
/// Longest name of a service account, a DNS subdomain.
const SERVICE_ACCOUNT: usize = 253;
/// Characters of an id, `a-` included.
const ID: usize = 19;

impl Eks {
    pub(super) fn create_association(&self, input: &CreateAssociation) -> Result<Value, Refused> {
        const OPERATION: &str = "CreatePodIdentityAssociation";
        let mut records = self.records.lock();
        let token = input.client_request_token.as_deref();
        if let Some(answer) = records.answered(OPERATION, token, input)? {
            return Ok(answer);
        }
        let mut new = self.new_association(&input.namespace, &input.service_account, &input.role_arn)?;
        input::check_tags(&input.tags)?;
        new.disable_session_tags = input.disable_session_tags.unwrap_or(false);
        new.target_role_arn = input.target_role_arn.clone().filter(|arn| !arn.is_empty());
        new.policy = input.policy.clone().filter(|policy| !policy.is_empty());
        check_terms(&new)?;
        let now = self.world.clock.now();
        let mut list = self.world.associations.list();
        add(&mut list, new.clone())?;
        self.put_associations(list, now)?;
        records.associations.insert(new.id(), Details::new(now, None, input.tags.clone()));
        let answer = json!({ "association": self.whole(&records, &new) });
        records.remember(OPERATION, token, input, &answer);
        Ok(answer)
    }

    pub(super) fn list_associations(&self, query: &Query) -> Result<Value, Refused> {
        let records = self.records.lock();
        let is_asked_for = |association: &Association| {
            query.one("namespace").is_none_or(|namespace| association.namespace == namespace)
                && query.one("serviceAccount").is_none_or(|name| association.service_account == name)
        };
        let list = self.world.associations.list().into_iter().filter(is_asked_for);
        let list = list.map(|association| (association.id(), self.summary(&records, &association))).collect();
        let (associations, next) = page(query, list)?;
        Ok(without_nulls(json!({ "associations": associations, "nextToken": next })))
    }

    pub(super) fn describe_association(&self, id: &str) -> Result<Value, Refused> {
        check_id(id)?;
        let records = self.records.lock();
        let list = self.world.associations.list();
        let association =
            list.iter().find(|association| association.id() == id).ok_or_else(|| missing(id))?;
        Ok(json!({ "association": self.whole(&records, association) }))
    }

    pub(super) fn update_association(&self, id: &str, input: &UpdateAssociation) -> Result<Value, Refused> {
        check_id(id)?;
        let operation = format!("UpdatePodIdentityAssociation {id}");
        let mut records = self.records.lock();
        let token = input.client_request_token.as_deref();
        if let Some(answer) = records.answered(&operation, token, input)? {
            return Ok(answer);
        }
        let changes_something = input.role_arn.is_some()
            || input.disable_session_tags.is_some()
            || input.target_role_arn.is_some()
            || input.policy.is_some();
        if !changes_something {
            return Err(Refused::invalid("An update must change at least one of the association's fields."));
        }
        let mut list = self.world.associations.list();
        let changed =
            list.iter_mut().find(|association| association.id() == id).ok_or_else(|| missing(id))?;
        // Its id goes by its names unless it says another, and must stay.
        changed.association_id = Some(id.to_owned());
        if let Some(role_arn) = &input.role_arn {
            self.check_role(role_arn)?;
            changed.role_arn.clone_from(role_arn);
            // What the file said of the old role.
            changed.refuse = None;
        }
        if let Some(disable) = input.disable_session_tags {
            changed.disable_session_tags = disable;
        }
        if let Some(arn) = &input.target_role_arn {
            changed.target_role_arn = Some(arn.clone()).filter(|arn| !arn.is_empty());
        }
        if let Some(policy) = &input.policy {
            changed.policy = Some(policy.clone()).filter(|policy| !policy.is_empty());
        }
        check_terms(changed)?;
        let changed = changed.clone();
        let now = self.world.clock.now();
        self.put_associations(list, now)?;
        let details = Details { modified_at: now, ..records.details(id) };
        records.associations.insert(id.to_owned(), details);
        let answer = json!({ "association": self.whole(&records, &changed) });
        records.remember(&operation, token, input, &answer);
        Ok(answer)
    }

    /// One that an add-on owns too: EKS lets the administrator.
    pub(super) fn delete_association(&self, id: &str) -> Result<Value, Refused> {
        check_id(id)?;
        let mut records = self.records.lock();
        let mut list = self.world.associations.list();
        let place = list.iter().position(|association| association.id() == id).ok_or_else(|| missing(id))?;
        let gone = list.remove(place);
        self.put_associations(list, self.world.clock.now())?;
        let answer = json!({ "association": self.whole(&records, &gone) });
        records.associations.remove(id);
        Ok(answer)
    }

    /// An association with an id of its own, of names and a role that EKS takes.
    pub(super) fn new_association(
        &self,
        namespace: &str,
        service_account: &str,
        role_arn: &str,
    ) -> Result<Association, Refused> {
        input::check_name("namespace", namespace, NAMESPACE)?;
        input::check_name("service account", service_account, SERVICE_ACCOUNT)?;
        self.check_role(role_arn)?;
        let mut new = Association::new(namespace, service_account, role_arn);
        new.association_id = Some(random::association_id());
        Ok(new)
    }

    pub(super) fn association_arn(&self, id: &str) -> String {
        self.arn("podidentityassociation", &format!("{}/{id}", self.world.options.cluster_name))
    }

    /// What lists have of it.
    fn summary(&self, records: &Records, association: &Association) -> Value {
        let id = association.id();
        without_nulls(json!({
            "clusterName": self.world.options.cluster_name,
            "namespace": association.namespace,
            "serviceAccount": association.service_account,
            "associationArn": self.association_arn(&id),
            "associationId": id,
            "ownerArn": records.details(&id).owner_arn,
        }))
    }

    /// All of it.
    fn whole(&self, records: &Records, association: &Association) -> Value {
        let details = records.details(&association.id());
        let mut whole = self.summary(records, association);
        let target = association.target_role_arn.as_ref();
        let more = without_nulls(json!({
            "roleArn": association.role_arn,
            "tags": details.tags,
            "createdAt": timestamp(details.created_at),
            "modifiedAt": timestamp(details.modified_at),
            "disableSessionTags": association.disable_session_tags,
            "targetRoleArn": target,
            "externalId": target.map(|_| association.external_id(&self.world.options)),
            "policy": association.policy,
        }));
        if let (Some(whole), Value::Object(more)) = (whole.as_object_mut(), more) {
            whole.extend(more);
        }
        whole
    }
}

/// Adds one, unless its service account has one already, whoever made that: nobody takes over another's.
pub(super) fn add(list: &mut Vec<Association>, new: Association) -> Result<(), Refused> {
    let same = |it: &&Association| it.namespace == new.namespace && it.service_account == new.service_account;
    if let Some(other) = list.iter().find(same) {
        let text = format!("Association already exists: {}", other.id());
        return Err(Refused::new(Code::ResourceInUse, text));
    }
    if list.len() >= MOST {
        let text = format!("A cluster has at most {MOST} pod identity associations.");
        return Err(Refused::new(Code::ResourceLimitExceeded, text));
    }
    list.push(new);
    Ok(())
}

fn check_terms(association: &Association) -> Result<(), Refused> {
    if let Some(arn) = &association.target_role_arn {
        input::check_role(arn)?;
    }
    if let Some(policy) = &association.policy {
        input::check_policy(policy, !association.disable_session_tags)?;
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), Refused> {
    if id.chars().count() == ID {
        return Ok(());
    }
    Err(Refused::invalid(format!("The parameter associationId should be {ID} characters long.")))
}

fn missing(id: &str) -> Refused {
    let text = format!("The association ID provided in the request does not exist: {id}");
    Refused::new(Code::ResourceNotFound, text)
}
