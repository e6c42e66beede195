//! What the sandbox asks of moto's IAM.
//!
//! Owns: the calls and the few elements read from their XML. Must not know: what trust policies mean.

use std::thread;

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{Client, MotoError, trusting_pod_identity};
use crate::aws::iam::arn::RoleArn;
use crate::aws::iam::oidc_provider::OidcProvider;
use crate::aws::iam::role::Role;

impl Client {
    /// A role, as it is now.
    pub(super) fn role(&self, arn: &str) -> Result<Option<Role>, String> {
        let Some(named) = RoleArn::parse(arn) else { return Ok(None) };
        let Some(xml) = self.found(&[("Action", "GetRole"), ("RoleName", named.name)])? else {
            return Ok(None);
        };
        let role = read_role(&xml).ok_or("the answer to GetRole has no role")?;
        // Another path, or another account: another role.
        Ok(Some(role).filter(|role| role.arn == arn))
    }

    /// An identity provider, as it is now.
    pub(super) fn oidc_provider(&self, arn: &str) -> Result<Option<OidcProvider>, String> {
        let parameters = [("Action", "GetOpenIDConnectProvider"), ("OpenIDConnectProviderArn", arn)];
        let Some(xml) = self.found(&parameters)? else { return Ok(None) };
        Ok(Some(OidcProvider { arn: arn.to_owned(), client_ids: client_ids(&xml) }))
    }

    /// Makes these roles. On a thread of its own: who starts a sandbox may be driving a runtime that must not
    /// block.
    pub(super) fn create_roles(&self, arns: &[&str], account: &str) -> Result<(), MotoError> {
        let create = || arns.iter().try_for_each(|arn| self.create_role(arn, account));
        let made = thread::scope(|scope| scope.spawn(create).join());
        made.unwrap_or_else(|_| Err(MotoError::Refused("the thread that asked it panicked".to_owned())))
    }

    /// A role that trusts EKS Pod Identity and may do nothing; none of another account, which moto has not.
    fn create_role(&self, arn: &str, account: &str) -> Result<(), MotoError> {
        let Some(named) = RoleArn::parse(arn).filter(|named| named.account == account) else { return Ok(()) };
        let path =
            arn.split_once(":role").map_or("/", |(_, path)| path.strip_suffix(named.name).unwrap_or("/"));
        let trust = trusting_pod_identity().to_string();
        let parameters = [
            ("Action", "CreateRole"),
            ("RoleName", named.name),
            ("Path", path),
            ("AssumeRolePolicyDocument", &trust),
        ];
        let refused = |why: String| MotoError::Refused(format!("CreateRole of {arn}: {why}"));
        let reply = self.call_iam(&parameters).map_err(refused)?;
        let said = String::from_utf8_lossy(&reply.body);
        // Two associations can share a role.
        if reply.status.is_success() || said.contains("EntityAlreadyExists") {
            Ok(())
        } else {
            Err(refused(said.into_owned()))
        }
    }

    /// The answer to a call that asks for one thing; none if there is no such thing.
    fn found(&self, parameters: &[(&str, &str)]) -> Result<Option<String>, String> {
        let reply = self.call_iam(parameters)?;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        match reply.status {
            StatusCode::OK => Ok(Some(text)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(format!("moto's IAM answered {status}: {text}")),
        }
    }
}

fn read_role(xml: &str) -> Option<Role> {
    // Encoded once more, as IAM does it.
    let document = percent_decode_str(element(xml, "AssumeRolePolicyDocument")?).decode_utf8().ok()?;
    let mut role = Role::new(element(xml, "Arn")?, serde_json::from_str(&document).ok()?);
    if let Some(seconds) = element(xml, "MaxSessionDuration").and_then(|text| text.trim().parse().ok()) {
        role.max_session_duration = seconds;
    }
    Some(role)
}

fn client_ids(xml: &str) -> Vec<String> {
    let list = element(xml, "ClientIDList").unwrap_or_default();
    list.split("<member>")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('<')?.0.trim().to_owned()))
        .collect()
}

/// The text of the first element of that name. Nothing that is read here holds what XML would have to escape.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_from_the_xml_of_iam() {
        let xml = "<GetRoleResponse><GetRoleResult><Role><Path>/</Path>\
                   <Arn>arn:aws:iam::111122223333:role/r</Arn>\
                   <AssumeRolePolicyDocument>%7B%22Statement%22%3A%20%5B%5D%7D</AssumeRolePolicyDocument>\
                   <MaxSessionDuration>7200</MaxSessionDuration></Role></GetRoleResult></GetRoleResponse>";
        let role = read_role(xml).unwrap();
        assert_eq!(
            (role.arn.as_str(), role.max_session_duration),
            ("arn:aws:iam::111122223333:role/r", 7200)
        );
        assert_eq!(role.trust_policy, serde_json::json!({ "Statement": [] }));
        assert!(read_role("<Role><Arn>a</Arn></Role>").is_none());
    }

    #[test]
    fn the_audiences_of_a_provider_are_read_from_the_xml_of_iam() {
        let xml = "<ThumbprintList><member>x</member></ThumbprintList>\
                   <ClientIDList><member>sts.amazonaws.com</member> <member>other</member></ClientIDList>";
        assert_eq!(client_ids(xml), ["sts.amazonaws.com", "other"]);
        assert!(client_ids("<ClientIDList/>").is_empty());
    }
}
