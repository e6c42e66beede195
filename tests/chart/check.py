"""The chart: what it renders, what it refuses, and whether Kubernetes knows every field of it.

`check.py --write` makes the golden files and the manifests anew; read the difference before it is committed.
"""

import argparse
import sys

import yaml
from conventions import check_every_object, check_labels, check_typos, check_upgrades
from documentation import check_commands, check_documentation, check_policies, check_values
from examples import check_examples
from features import check_capabilities, check_events, check_rights, check_roles, check_text, check_trial_call, check_verification
from manifests import MANIFESTS, check_kustomization, check_manifest, check_takeover
from monitors import check_metrics_off, check_operators_rules, check_service_monitor
from nulls import check_empties, check_nulls
from page import check_page, check_readiness
from pods import check_effects, check_extra_objects, check_once
from readme import check_chart, check_readme
from rendering import CHART, GOOD, HERE, check_object, compare, helm, render
from rules import check_changes, check_each_fires, check_runbook, check_thresholds
from scraping import check_scraping
from series import check_alerts, check_dashboard, check_dashboard_object
from upgrades import check_refused_upgrades

SURGE = ["--set", "updateStrategy.rollingUpdate.maxSurge=1,updateStrategy.rollingUpdate.maxUnavailable=0"]
ROLE_MAP = '{"shop/cart": {"RoleARN": "arn:aws:iam::111122223333:role/cart"}}'
REFUSED = {
    "no cluster": (["--set", "env.AWS_REGION=eu-west-1"], "clusterName is required"),
    "the placeholder of Amazon's values": (GOOD + ["--set", "env.AWS_REGION=AWS_REGION_NAME"], "env.AWS_REGION is still a placeholder"),
    "hybrid nodes without a region": (GOOD + ["--set", "daemonsets.hybrid.create=true"], "daemonsets.hybrid needs env.AWS_REGION"),
    "Bottlerocket ones": (
        GOOD + ["--set", "daemonsets.hybrid-bottlerocket.create=true"],
        "daemonsets.hybrid-bottlerocket needs env.AWS_REGION",
    ),
    "placeholders": (["--set", "clusterName=EKS_CLUSTER_NAME", "--set", "env.AWS_REGION=x"], "clusterName is required"),
    "Amazon's image": (
        GOOD + ["--set", "image.override=602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/eks-pod-identity-agent:0.1.10"],
        "is the Amazon agent's, which this chart does not start",
    ),
    "Amazon's registry": (
        GOOD + ["--set", "image.containerRegistry=602401143452.dkr.ecr.us-west-2.amazonaws.com"],
        "which holds the Amazon agent's image",
    ),
    "nobody listens": (GOOD + ["--set", "sharePort=true,guardAddress=false"], "sharePort needs guardAddress"),
    "surge without the guard": (GOOD + SURGE + ["--set", "guardAddress=false"], "maxSurge needs a port 80 that is not declared"),
    "surge beside a declared port": (
        GOOD + SURGE + ["--set", "agent.advertiseProxyPort=true"],
        "maxSurge needs a port 80 that is not declared",
    ),
    "surge with a probe that the old agent answers": (
        GOOD + SURGE + ["--set", "agent.readinessEndpoint=/healthz"],
        "maxSurge needs agent.readinessEndpoint=/readyz",
    ),
    "surge without a readiness probe": (
        GOOD + ["--set", "updatePreset=surge,agent.readinessEndpoint="],
        "maxSurge needs agent.readinessEndpoint=/readyz",
    ),
    "two agents on every node": (
        GOOD + ["--set", "daemonsets.mine.create=true,daemonsets.mine.nameSuffix=mine"],
        "daemonsets.cloud and daemonsets.mine have no affinity of their own",
    ),
    "a name that no Service can have": (GOOD + ["--set", "fullnameOverride=prod.agent"], "set fullnameOverride"),
    "two monitors": (
        GOOD + ["--set", "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true"],
        "each pod would be scraped twice",
    ),
    "a scrape that outlasts its interval": (
        GOOD + ["--set", "metrics.podMonitor.enabled=true,metrics.podMonitor.interval=1m,metrics.podMonitor.scrapeTimeout=61s"],
        "metrics.podMonitor.scrapeTimeout is 61s, longer than the interval of 1m",
    ),
    "an interval that is none": (GOOD + ["--set-string", "metrics.serviceMonitor.interval=15"], "/metrics/serviceMonitor/interval"),
    "a time-out that is none": (GOOD + ["--set", "metrics.podMonitor.scrapeTimeout=soon"], "/metrics/podMonitor/scrapeTimeout"),
    "a value that is null": (GOOD + ["--set", "guardAddress=null"], "missing property 'guardAddress'"),
    "a section that is null": (GOOD + ["--set", "metrics=null"], "metrics must not be null"),
    "a part of one that is null": (GOOD + ["--set", "agent.metrics.podMonitor=null"], "metrics.podMonitor must not be null"),
    "plain http to another host": (
        GOOD + ["--set", "agent.additionalArgs.--endpoint=http://name.svc:8080"],
        "tokens would leave the node unencrypted",
    ),
    "plain http by a variable": (GOOD + ["--set", "env.AWS_ENDPOINT_URL=http://name.svc:8080"], "env has AWS_ENDPOINT_URL=http://name.svc"),
    "plain http by a variable of one kind of nodes": (
        GOOD + ["--set", "daemonsets.cloud.env.AWS_ENDPOINT_URL_STS=http://10.0.0.1"],
        "daemonsets.cloud.env has AWS_ENDPOINT_URL_STS=http://10.0.0.1",
    ),
    "plain http by a flag of one kind of nodes": (
        GOOD + ["--set", "daemonsets.cloud.additionalArgs.--sts-endpoint=http://localhost.example"],
        "daemonsets.cloud.additionalArgs has --sts-endpoint=http://localhost.example",
    ),
    "a tag that was a number": (GOOD + ["--set-json", "image.tag=1.10"], "image/tag"),
    "Amazon's version": (GOOD + ["--set", "image.tag=v1.3.9-eksbuild.3"], "is a version of the Amazon agent"),
    "Amazon's watching of pods": (GOOD + ["--set", "podLivenessCheck.enabled=true"], "podLivenessCheck.enabled is not supported"),
    "keys of nobody": (GOOD + ["--set", "jwks={/keys.json}"], "jwks needs issuers"),
    "issuers without keys": (
        GOOD + ["--set", "issuers={https://a.example},kubernetes.enabled=false"],
        "issuers needs jwks or kubernetes.enabled",
    ),
    "verification without keys": (
        GOOD + ["--set", "tokenVerification=required,kubernetes.enabled=false"],
        "tokenVerification=required needs jwks or kubernetes.enabled",
    ),
    "verification that is on": (GOOD + ["--set", "tokenVerification=true"], "tokenVerification"),
    "annotations that nobody reads": (
        GOOD + ["--set", "kubernetes.serviceAccounts=true,kubernetes.enabled=false,jwks={/keys.json},issuers={https://a.example}"],
        "kubernetes.serviceAccounts needs kubernetes.enabled",
    ),
    "two role maps": (
        GOOD + ["--set-json", f"webIdentity.roleMap={ROLE_MAP}", "--set", "webIdentity.roleMapConfigMap=roles"],
        "webIdentity.roleMap and webIdentity.roleMapConfigMap are both set",
    ),
    "limits without roles": (
        GOOD + ["--set-json", 'webIdentity.roleLimits={"shop": ["*"]}'],
        "webIdentity.roleLimits needs kubernetes.serviceAccounts or webIdentity.roleMap",
    ),
    "nobody is served": (GOOD + ["--set", "podIdentity=false"], "podIdentity=false needs kubernetes.serviceAccounts or"),
    "roles for claims": (
        GOOD + ["--set", "kubernetes.serviceAccounts=true,tokenVerification=off"],
        "roles of service accounts need tokens that are verified",
    ),
    "roles without keys": (
        GOOD + ["--set", "webIdentity.roleMapConfigMap=roles,kubernetes.enabled=false"],
        "roles of service accounts need tokens that are verified",
    ),
    "no section of roles": (GOOD + ["--set", "webIdentity=null"], "webIdentity must not be null"),
    "a namespace with a star": (GOOD + ["--set-json", f"webIdentity.roleMap={ROLE_MAP.replace('shop/', '*/')}"], "'*/cart' does not match"),
    "a field that is none": (GOOD + ["--set-json", f"webIdentity.roleMap={ROLE_MAP.replace('RoleARN', 'RoleArn')}"], "roleMap"),
    "a namespace with a dot": (GOOD + ["--set-json", f"webIdentity.roleMap={ROLE_MAP.replace('shop/', 'a.b/')}"], "'a.b/cart' does not match"),
    "a path with a star": (GOOD + ["--set-json", f"webIdentity.roleMap={ROLE_MAP.replace('role/', 'role/a*/')}"], "RoleARN"),
    "a name with an odd letter": (GOOD + ["--set-json", f"webIdentity.roleMap={ROLE_MAP.replace('role/cart', 'role/c!art')}"], "RoleARN"),
    "a token of a second": (
        GOOD + ["--set-json", "webIdentity.roleMap=" + ROLE_MAP.replace('cart"}', 'cart", "TokenExpiration": 1}')],
        "TokenExpiration",
    ),
    "a limit with a question mark": (
        GOOD + ["--set-json", 'webIdentity.roleLimits={"shop": ["arn:a?"]}', "--set", "kubernetes.serviceAccounts=true"],
        "/webIdentity/roleLimits/shop/0",
    ),
    "a limit that is no role": (
        GOOD + ["--set-json", 'webIdentity.roleLimits={"shop": ["cart"]}', "--set", "kubernetes.serviceAccounts=true"],
        "/webIdentity/roleLimits/shop/0",
    ),
    "an endpoint that is no URL": (GOOD + ["--set", "webIdentity.stsEndpoint=vpce.example"], "stsEndpoint"),
    "a session name that is none": (GOOD + ["--set", "webIdentity.sessionName=fixed:a b"], "sessionName"),
    "two kinds of one name": (
        GOOD + ["--set", "daemonsets.gpu.create=true,daemonsets.gpu.env.A=b"],
        "daemonsets.cloud and daemonsets.gpu are both named pod-identity-agent",
    ),
    "two kinds of one suffix": (
        GOOD + ["--set", "daemonsets.hybrid.create=true,daemonsets.hybrid-bottlerocket.create=true"]
        + ["--set", "daemonsets.hybrid-bottlerocket.nameSuffix=hybrid"],
        "are both named pod-identity-agent-hybrid",
    ),
    "a misspelt kind that is made": (GOOD + ["--set", "daemonsets.hybird.create=true"], "daemonsets.hybird is no kind of nodes"),
    "a misspelt kind that is not": (GOOD + ["--set", "daemonsets.clod.create=false"], "daemonsets.clod is no kind of nodes"),
    "a suffix that is no name": (GOOD + ["--set", "daemonsets.hybrid.nameSuffix=Hybrid_2"], "nameSuffix"),
    "a number with a fraction": (GOOD + ["--set-json", "env.HALF=0.5"], "/env/HALF"),
    "a number that lost its end": (GOOD + ["--set-json", "podAnnotations.a=1.10"], "/podAnnotations"),
    "a number that is too long": (GOOD + ["--set-json", "env.LONG=9007199254740993"], "/env/LONG"),
    "one that is too long below zero": (GOOD + ["--set", "agent.additionalArgs.--a=-9007199254740993"], "additionalArgs"),
    "a long tag": (GOOD + ["--set-json", "image.tag=20260101000000000001"], "image/tag"),
    "a flag without its capability": (GOOD + ["--set", "agent.additionalArgs.--block-imds=true"], "set the value blockImds"),
    "a flag of one DaemonSet": (
        GOOD + ["--set", "daemonsets.cloud.additionalArgs.--guard-address=true"],
        "daemonsets.cloud.additionalArgs has --guard-address: set the value guardAddress",
    ),
    "no addresses": (GOOD + ["--set", "manageLink=false"], "either manageLink or init.create"),
    "a block that is none": (GOOD + ["--set", "blockImds=audit"], "blockImds"),
    "a port that is none": (GOOD + ["--set", "guardPort=0"], "guardPort"),
    "a port in words": (GOOD + ["--set", "agent.probePort=http"], "probePort"),
    "a link that is none": (GOOD + ["--set", "link=eth0"], "link"),
    "a flag that is none": (GOOD + ["--set", "agent.additionalArgs.qps=3"], "additionalArgs"),
}

# What is said in two ways, with the same in mind.
SAME = {
    "the metadata block as YAML reads on": (["--set", "blockImds=true"], ["--set", "blockImds=on"]),
    "the metadata block as YAML reads off": (["--set", "blockImds=false"], ["--set", "blockImds=off"]),
    "metrics where earlier charts of Amazon have them": (
        ["--set", "agent.metrics.port=2725", "--set", "agent.metrics.serviceMonitor.enabled=true"],
        ["--set", "metrics.port=2725", "--set", "metrics.serviceMonitor.enabled=true"],
    ),
    "no metrics, said there": (["--set", "agent.metrics.enabled=false"], ["--set", "metrics.enabled=false"]),
    "ports in quotes": (
        ["--set-string", "agent.probePort=2713,metrics.port=2715"],
        ["--set", "agent.probePort=2713,metrics.port=2715"],
    ),
    "verification off, as YAML reads it": (["--set-json", "tokenVerification=false"], ["--set", "tokenVerification=off"]),
    "no affinity": (["--set", "affinity="], ["--set", "affinity=null"]),
    "updates by people, with a null that takes the others away": (
        ["--set-json", 'updateStrategy={"type":"OnDelete","rollingUpdate":null}'],
        ["--set", "updateStrategy.type=OnDelete"],
    ),
    "no DaemonSet": (["--set", "daemonsets.cloud=null"], ["--set", "daemonsets.cloud.create=false"]),
    "plain http to this node": (
        ["--set", "agent.additionalArgs.--endpoint=http://127.0.0.1:8080"],
        ["--set", "daemonsets.cloud.additionalArgs.--endpoint=http://127.0.0.1:8080"],
    ),
    "one's own registry": (
        ["--set", "image.containerRegistry=123456789012.dkr.ecr.eu-west-1.amazonaws.com"],
        ["--set", "image.override=123456789012.dkr.ecr.eu-west-1.amazonaws.com/pod-identity-agent:0.1.0"],
    ),
}
# What serviceAccount says, and the account that is made and the one that pods have.
ACCOUNTS = (
    ([], ["pod-identity-agent"], "pod-identity-agent"),
    (["--set", "serviceAccount.name=agent"], ["agent"], "agent"),
    (["--set", "serviceAccount.create=false"], [], None),
    (["--set", "serviceAccount.create=false,serviceAccount.name=agent"], [], "agent"),
)


def check_variant(values, write):
    rendered = render("--values", str(values))
    if rendered.returncode != 0:
        return [f"{values.name}: {rendered.stderr.strip()}"]
    problems = compare(HERE / "golden" / values.name, rendered.stdout, write)
    problems += check_helm_3(values.name, rendered, "--values", str(values))
    for document in filter(None, yaml.safe_load_all(rendered.stdout)):
        problems += [f"{values.name}: {problem}" for problem in check_object(document)]
    return problems


def check_helm_3(name, by_4, *arguments):
    """Helm 3 renders the same, and refuses the same."""
    by_3 = render(*arguments, program="helm3")
    if by_3.returncode != by_4.returncode:
        return [f"{name}: Helm 3 says {by_3.returncode}, Helm 4 {by_4.returncode}: {(by_3.stderr or by_4.stderr).strip()}"]
    # Helm 3 writes no empty line between two files.
    documents = [list(yaml.safe_load_all(told.stdout)) for told in (by_3, by_4)]
    return [] if documents[0] == documents[1] else [f"{name}: Helm 3 renders it differently"]


def check_refused(name, arguments, sentence):
    rendered = render(*arguments)
    said = rendered.stderr
    if rendered.returncode == 0:
        return [f"{name}: is rendered"]
    problems = [] if sentence in said else [f"{name}: refused without {sentence!r}: {said.strip()}"]
    return problems + check_helm_3(name, rendered, *arguments)


def check_same(name, one, other):
    rendered = [render(*GOOD, *arguments) for arguments in (one, other)]
    if any(result.returncode != 0 for result in rendered):
        return [f"{name}: {result.stderr.strip()}" for result in rendered if result.stderr]
    return [] if rendered[0].stdout == rendered[1].stdout else [f"{name}: they render differently"]


def check_account(arguments, made, used):
    documents = list(filter(None, yaml.safe_load_all(render(*GOOD, *arguments).stdout)))
    accounts = [document["metadata"]["name"] for document in documents if document["kind"] == "ServiceAccount"]
    pods = [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "DaemonSet"]
    names = {pod.get("serviceAccountName") for pod in pods}
    return [] if accounts == made and names == {used} else [f"{arguments}: made {accounts}, pods have {names}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the golden files and the manifests")
    write = parser.parse_args().write
    problems, checks = [], 0
    lint = helm("lint", "--strict", str(CHART), *GOOD)
    checks += 1
    if lint.returncode != 0:
        problems.append(f"helm lint: {lint.stdout}{lint.stderr}")
    for values in sorted((HERE / "variants").glob("*.yaml")):
        checks += 1
        problems += check_variant(values, write)
    for name in MANIFESTS:
        checks += 1
        problems += check_manifest(name, write)
    checks += 1
    problems += check_readme(write)
    for check in (
        *(check_alerts, check_dashboard, check_dashboard_object, check_documentation, check_commands),
        *(check_values, check_policies),
        *(check_page, check_readiness),
        *(check_examples, check_kustomization, check_takeover),
        *(check_runbook, check_each_fires, check_thresholds, check_changes),
        *(check_chart, check_upgrades, check_refused_upgrades, check_every_object, check_labels, check_typos, check_nulls, check_empties),
        *(check_effects, check_once, check_extra_objects),
        *(check_capabilities, check_text, check_rights, check_events, check_verification, check_roles, check_trial_call),
        *(check_operators_rules, check_scraping, check_service_monitor, check_metrics_off),
    ):
        checks += 1
        problems += check()
    for sample in sorted((CHART.parent / "policies").glob("*.yaml")):
        checks += 1
        for document in yaml.safe_load_all(sample.read_text()):
            problems += [f"{sample.name}: {problem}" for problem in check_object(document)]
    for name, (arguments, sentence) in REFUSED.items():
        checks += 1
        problems += check_refused(name, arguments, sentence)
    for name, (one, other) in SAME.items():
        checks += 1
        problems += check_same(name, one, other)
    for arguments, made, used in ACCOUNTS:
        checks += 1
        problems += check_account(arguments, made, used)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"chart: {checks} checks, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
