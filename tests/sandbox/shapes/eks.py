"""Checks EKS's API of the sandbox against botocore's own model of it: every answer, every error.

Run by check.py, which has the helpers. Each answer is parsed by botocore and, as it came over the wire, compared with
the model member by member; each error must be one that the model has for its operation, with the model's status.
"""

import json

POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})


class Checks:
    """The calls of one client, each checked as it is made."""

    def __init__(self, client, raw, cluster, say, compare):
        self.client, self.raw, self.cluster, self.say, self.compare = client, raw, cluster, say, compare

    def model(self, call):
        return self.client.meta.service_model.operation_model(self.client.meta.method_to_api_mapping[call])

    def good(self, call, **arguments):
        """The answer, which must be the model's in every member."""
        answer = getattr(self.client, call)(**arguments)
        model = self.model(call)
        found = list(self.compare(json.loads(self.raw["body"]), model.output_shape, "answer"))
        status = self.raw["status_code"] == model.http.get("responseCode", 200)
        self.say(f"eks: {call} answers as the model says", status and not found, "; ".join(found))
        return answer

    def bad(self, call, code, why, **arguments):
        """The error, which must be modelled for this very operation."""
        errors = {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in self.model(call).error_shapes}
        try:
            getattr(self.client, call)(**arguments)
            outcome = "success"
        except self.client.exceptions.ClientError as error:
            outcome = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
            shape = self.client.meta.service_model.shape_for(code)
            foreign = set(json.loads(self.raw["body"])) - set(shape.members)
            outcome = outcome if not foreign else (*outcome, f"members that the model lacks: {foreign}")
        self.say(f"eks: {why} is {code}", code in errors and outcome == (code, errors[code]), outcome)

    def associations(self, role):
        cluster = {"clusterName": self.cluster}
        made = {**cluster, "namespace": "shapes", "serviceAccount": "one", "roleArn": role}
        whole = self.good("create_pod_identity_association", **made, tags={"team": "a"}, clientRequestToken="t",
                          targetRoleArn=role + "-target", disableSessionTags=True, policy=POLICY)["association"]
        again = self.good("create_pod_identity_association", **made, tags={"team": "a"}, clientRequestToken="t",
                          targetRoleArn=role + "-target", disableSessionTags=True, policy=POLICY)["association"]
        self.say("eks: the same request with the same token makes nothing new", whole == again)
        self.say("eks: a target role has an external id", whole.get("externalId"), whole)
        self.say("eks: nobody owns what is made by hand", "ownerArn" not in whole, whole)
        one = {**cluster, "associationId": whole["associationId"]}
        shown = self.good("describe_pod_identity_association", **one)["association"]
        self.say("eks: what is described is what was made", shown == whole, shown)
        changed = self.good("update_pod_identity_association", **one, roleArn=role + "-other")["association"]
        same = {name: value for name, value in changed.items() if name not in ("roleArn", "modifiedAt")}
        expected = {name: value for name, value in whole.items() if name not in ("roleArn", "modifiedAt")}
        self.say("eks: an update changes what it names, and nothing else", same == expected, changed)
        self.bad("create_pod_identity_association", "ResourceInUseException", "a second association", **made)
        other = {**made, "serviceAccount": "two"}
        for why, arguments in [
            ("a policy beside session tags", {"policy": POLICY}),
            ("a policy that is none", {"policy": "{}", "disableSessionTags": True}),
            ("a role of another account", {"roleArn": "arn:aws:iam::999988887777:role/a"}),
            ("a role that is none", {"roleArn": "role"}),
            ("a namespace that is none", {"namespace": "Not_A_Namespace"}),
            ("a tag of AWS's own", {"tags": {"aws:team": "a"}}),
        ]:
            self.bad("create_pod_identity_association", "InvalidParameterException", why, **{**other, **arguments})
        self.bad("create_pod_identity_association", "InvalidRequestException", "a token used before",
                 **other, clientRequestToken="t")
        self.bad("update_pod_identity_association", "InvalidParameterException", "an update of nothing", **one)
        for name in ("two", "three"):
            self.good("create_pod_identity_association", **{**made, "serviceAccount": name})
        self.pages(cluster)
        gone = self.good("delete_pod_identity_association", **one)["association"]
        self.say("eks: a deletion shows what is gone", gone["associationId"] == whole["associationId"], gone)
        for call in ("describe", "delete"):
            self.bad(f"{call}_pod_identity_association", "ResourceNotFoundException", f"to {call} what is gone", **one)
        for call in ("describe", "delete"):
            self.bad(f"{call}_pod_identity_association", "InvalidParameterException", f"to {call} what is no id",
                     **cluster, associationId="a-1")
        self.bad("list_pod_identity_associations", "ResourceNotFoundException", "another cluster", clusterName="another")

    def pages(self, cluster):
        pages = self.client.get_paginator("list_pod_identity_associations")
        listed = [page["associations"] for page in
                  pages.paginate(**cluster, namespace="shapes", PaginationConfig={"PageSize": 2})]
        names = {each["serviceAccount"] for page in listed for each in page}
        self.say("eks: pages hold each association once", [len(page) for page in listed] == [2, 1], listed)
        self.say("eks: a filter lists the namespace", names == {"one", "two", "three"}, names)
        answer = self.good("list_pod_identity_associations", **cluster, serviceAccount="two")
        self.say("eks: a filter lists the service account", len(answer["associations"]) == 1, answer)
        self.bad("list_pod_identity_associations", "InvalidParameterException", "a token of no page",
                 **cluster, nextToken="!")

    def addons(self, role):
        name = "aws-ebs-csi-driver"
        addon = {"clusterName": self.cluster, "addonName": name}
        versions = self.good("describe_addon_versions", addonName=name, kubernetesVersion="1.30")["addons"]
        version = versions[0]["addonVersions"][0]["addonVersion"]
        self.good("describe_addon_configuration", addonName=name, addonVersion=version)
        self.bad("describe_addon_configuration", "ResourceNotFoundException", "an unknown version",
                 addonName=name, addonVersion="v0")
        associations = [{"serviceAccount": "ebs-csi-controller-sa", "roleArn": role}]
        made = self.good("create_addon", **addon, addonVersion=version, podIdentityAssociations=associations,
                         tags={"team": "a"}, resolveConflicts="OVERWRITE", configurationValues="{}")["addon"]
        self.say("eks: an add-on names its associations", len(made["podIdentityAssociations"]) == 1, made)
        self.good("describe_addon", **addon)
        self.good("list_addons", clusterName=self.cluster)
        update = self.good("update_addon", **addon, podIdentityAssociations=[])["update"]
        done = self.good("describe_update", name=self.cluster, addonName=name, updateId=update["id"])["update"]
        self.say("eks: an update ends", (update["status"], done["status"]) == ("InProgress", "Successful"), done)
        self.bad("create_addon", "ResourceInUseException", "an add-on that is there", **addon)
        for why, arguments in [
            ("an unknown version to update to", {"addonVersion": "v0"}),
            ("configuration that is no object", {"configurationValues": "[]"}),
            ("a service account that is not the add-on's",
             {"podIdentityAssociations": [{"serviceAccount": "shapes", "roleArn": role}]}),
        ]:
            self.bad("update_addon", "InvalidParameterException", why, **{**addon, **arguments})
        self.bad("create_addon", "InvalidParameterException", "an unknown add-on", **{**addon, "addonName": "nothing"})
        self.good("delete_addon", **addon, preserve=False)
        for call in ("describe", "update", "delete"):
            self.bad(f"{call}_addon", "ResourceNotFoundException", f"to {call} an add-on that is gone", **addon)

    def cluster_itself(self):
        self.good("list_clusters")
        self.good("describe_cluster", name=self.cluster)
        self.bad("describe_cluster", "ResourceNotFoundException", "another cluster", name="another")
        self.bad("describe_update", "ResourceNotFoundException", "an unknown update", name=self.cluster, updateId="x")


def check(client, raw, cluster, account, say, compare):
    """All of it."""
    checks = Checks(client, raw, cluster, say, compare)
    # Not the role of the web identity, which trusts nobody else.
    role = f"arn:aws:iam::{account}:role/shapes-of-eks"
    checks.cluster_itself()
    checks.associations(role)
    checks.addons(role)
