//! Add-ons, and the associations they own.
//!
//! Owns: ownership: an add-on makes its associations, replaces them as a whole, takes them with it when it is
//! deleted, and never takes over one that somebody else made. Must not know: software: nothing is installed.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::associations::add;
use super::catalog::Offered;
use super::input::{self, AddonAssociation, AddonInput};
use super::page::page;
use super::query::Query;
use super::records::{Addon, Details, Records};
use super::refusal::{Code, Refused};
use super::{Eks, timestamp, without_nulls};
use crate::aws::associations::Association;
use crate::random;

impl Eks {
    pub(super) fn create_addon(&self, input: &AddonInput) -> Result<Value, Refused> {
        const OPERATION: &str = "CreateAddon";
        let mut records = self.records.lock();
        let token = input.client_request_token.as_deref();
        if let Some(answer) = records.answered(OPERATION, token, input)? {
            return Ok(answer);
        }
        let name = input.addon_name.as_deref().unwrap_or_default();
        let offered = Offered::named(name).ok_or_else(|| {
            Refused::invalid(format!("Addon {name} specified is not supported")).of_addon(name)
        })?;
        let version = self.check_addon(input, offered)?;
        input::check_tags(&input.tags.clone().unwrap_or_default())?;
        if records.addons.contains_key(name) {
            return Err(Refused::new(Code::ResourceInUse, "Addon already exists.").of_addon(name));
        }
        let now = self.world.clock.now();
        let arn =
            self.arn("addon", &format!("{}/{name}/{}", self.world.options.cluster_name, random::uuid()));
        let config = input.namespace_config.as_ref();
        let addon = Addon {
            arn,
            version: version.to_owned(),
            namespace: config.map_or(offered.namespace, |config| &config.namespace).to_owned(),
            service_account_role_arn: input.service_account_role_arn.clone(),
            configuration_values: input.configuration_values.clone(),
            tags: input.tags.clone().unwrap_or_default(),
            created_at: now,
            modified_at: now,
        };
        let wanted = input.pod_identity_associations.as_deref().unwrap_or_default();
        self.own(&mut records, &addon, wanted, now).map_err(|refused| refused.of_addon(name))?;
        records.addons.insert(name.to_owned(), addon.clone());
        let answer = json!({ "addon": self.addon(&records, name, &addon, "CREATING") });
        records.remember(OPERATION, token, input, &answer);
        Ok(answer)
    }

    pub(super) fn list_addons(&self, query: &Query) -> Result<Value, Refused> {
        let names = self.records.lock().addons.keys().map(|name| (name.clone(), name.clone())).collect();
        let (addons, next) = page(query, names)?;
        Ok(without_nulls(json!({ "addons": addons, "nextToken": next })))
    }

    pub(super) fn describe_addon(&self, name: &str) -> Result<Value, Refused> {
        let records = self.records.lock();
        let addon = self.installed(&records, name)?;
        Ok(json!({ "addon": self.addon(&records, name, &addon, "ACTIVE") }))
    }

    pub(super) fn update_addon(&self, name: &str, input: &AddonInput) -> Result<Value, Refused> {
        let operation = format!("UpdateAddon {name}");
        let mut records = self.records.lock();
        let token = input.client_request_token.as_deref();
        if let Some(answer) = records.answered(&operation, token, input)? {
            return Ok(answer);
        }
        if input.addon_name.is_some() || input.tags.is_some() || input.namespace_config.is_some() {
            return Err(Refused::invalid("An update takes neither addonName, tags nor namespaceConfig."));
        }
        let mut addon = self.installed(&records, name)?;
        let offered = Offered::named(name).ok_or_else(|| self.not_installed(name))?;
        let version = self.check_addon(input, offered)?;
        let now = self.world.clock.now();
        if input.addon_version.is_some() {
            version.clone_into(&mut addon.version);
        }
        if let Some(arn) = &input.service_account_role_arn {
            addon.service_account_role_arn = Some(arn.clone());
        }
        if let Some(values) = &input.configuration_values {
            addon.configuration_values = Some(values.clone());
        }
        addon.modified_at = now;
        // Left away is no change; an empty list is none.
        if let Some(wanted) = &input.pod_identity_associations {
            self.own(&mut records, &addon, wanted, now).map_err(|refused| refused.of_addon(name))?;
        }
        records.addons.insert(name.to_owned(), addon);
        let update = json!({
            "type": "AddonUpdate", "createdAt": timestamp(now), "params": parameters(input),
        });
        let answer = json!({ "update": records.update(update) });
        records.remember(&operation, token, input, &answer);
        Ok(answer)
    }

    /// With `preserve` its associations stay, and are nobody's.
    pub(super) fn delete_addon(&self, name: &str, preserve: bool) -> Result<Value, Refused> {
        let mut records = self.records.lock();
        let addon = self.installed(&records, name)?;
        let answer = json!({ "addon": self.addon(&records, name, &addon, "DELETING") });
        if preserve {
            for details in records.associations.values_mut() {
                details.owner_arn.take_if(|owner| *owner == addon.arn);
            }
        } else {
            self.own(&mut records, &addon, &[], self.world.clock.now())?;
        }
        records.addons.remove(name);
        Ok(answer)
    }

    /// What both creation and update check. Gives the version.
    fn check_addon(&self, input: &AddonInput, offered: &Offered) -> Result<&'static str, Refused> {
        let invalid = |text: &str| Refused::invalid(text).of_addon(offered.name);
        if let Some(arn) = &input.service_account_role_arn {
            input::check_own_role(arn, &self.world.options.account)?;
        }
        if let Some(values) = &input.configuration_values {
            // JSON is YAML too.
            let object = serde_saphyr::from_str::<serde_json::Map<String, Value>>(values);
            object.map_err(|_| invalid("ConfigurationValue is not in the correct format."))?;
        }
        let version = offered.version(input.addon_version.as_deref());
        let version = version.ok_or_else(|| invalid("Addon version specified is not supported"))?;
        for wanted in input.pod_identity_associations.iter().flatten() {
            offered.check_service_account(&wanted.service_account, version).map_err(|text| invalid(&text))?;
        }
        Ok(version)
    }

    /// Makes these the add-on's associations, and no others: one of the same service account keeps its id.
    fn own(
        &self,
        records: &mut Records,
        addon: &Addon,
        wanted: &[AddonAssociation],
        now: SystemTime,
    ) -> Result<(), Refused> {
        let is_own = |it: &Association| records.details(&it.id()).owner_arn.as_ref() == Some(&addon.arn);
        let (mut own, mut list): (Vec<_>, Vec<_>) =
            self.world.associations.list().into_iter().partition(is_own);
        let mut changed = Vec::new();
        for AddonAssociation { service_account, role_arn } in wanted {
            let mut next = self.new_association(&addon.namespace, service_account, role_arn)?;
            let known = own.iter().position(|it| it.service_account == *service_account);
            if let Some(known) = known.map(|place| own.swap_remove(place)) {
                next.association_id = Some(known.id());
            }
            changed.push(next.id());
            add(&mut list, next)?;
        }
        self.put_associations(list, now)?;
        for gone in own {
            records.associations.remove(&gone.id());
        }
        for id in changed {
            let new = Details::new(now, Some(addon.arn.clone()), addon.tags.clone());
            records.associations.entry(id).and_modify(|details| details.modified_at = now).or_insert(new);
        }
        Ok(())
    }

    fn installed(&self, records: &Records, name: &str) -> Result<Addon, Refused> {
        records.addons.get(name).cloned().ok_or_else(|| self.not_installed(name))
    }

    fn not_installed(&self, name: &str) -> Refused {
        let text = format!("No addon: {name} found in cluster: {}", self.world.options.cluster_name);
        Refused::new(Code::ResourceNotFound, text).of_addon(name)
    }

    fn addon(&self, records: &Records, name: &str, addon: &Addon, status: &str) -> Value {
        let offered = Offered::named(name);
        let owned = self.world.associations.list().into_iter().map(|association| association.id());
        let owned = owned.filter(|id| records.details(id).owner_arn.as_ref() == Some(&addon.arn));
        let owned: Vec<_> = owned.map(|id| self.association_arn(&id)).collect();
        without_nulls(json!({
            "addonName": name,
            "clusterName": self.world.options.cluster_name,
            "status": status,
            "addonVersion": addon.version,
            "health": { "issues": [] },
            "addonArn": addon.arn,
            "createdAt": timestamp(addon.created_at),
            "modifiedAt": timestamp(addon.modified_at),
            "serviceAccountRoleArn": addon.service_account_role_arn,
            "tags": addon.tags,
            "publisher": offered.map(|offered| offered.publisher),
            "owner": offered.map(|offered| offered.owner),
            "configurationValues": addon.configuration_values,
            "podIdentityAssociations": owned,
            "namespaceConfig": { "namespace": addon.namespace },
        }))
    }
}

/// What an update says it changes.
fn parameters(input: &AddonInput) -> Vec<Value> {
    let associations = input.pod_identity_associations.as_ref().map(|list| json!(list).to_string());
    let resolve =
        input.resolve_conflicts.map(|resolve| json!(resolve).as_str().unwrap_or_default().to_owned());
    let all = [
        ("AddonVersion", input.addon_version.clone()),
        ("ServiceAccountRoleArn", input.service_account_role_arn.clone()),
        ("ResolveConflicts", resolve),
        ("ConfigurationValues", input.configuration_values.clone()),
        ("PodIdentityAssociations", associations),
    ];
    let given = all.into_iter().filter_map(|(kind, value)| Some(json!({ "type": kind, "value": value? })));
    given.collect()
}
