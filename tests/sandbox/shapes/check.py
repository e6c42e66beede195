"""Checks the sandbox's answers against botocore's own service models.

Run it with a Python that has botocore, against a running sandbox:

    sandbox up --no-agent                      # prints the control URL
    python check.py --control http://127.0.0.1:PORT

Everything else is asked of the control port. Prints one line per check; exits 1 and names each difference.
"""

import argparse
import json
import os
import re
import sys
import urllib.request
import xml.etree.ElementTree as ElementTree

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

import eks

STS_NAMESPACE = "{https://sts.amazonaws.com/doc/2011-06-15/}"
ROLE = "arn:aws:iam::{account}:role/shapes"
# What a shape of the model is in JSON. rest-json writes a timestamp in a body as a number of seconds.
JSON_TYPES = {"string": str, "timestamp": (int, float), "integer": int, "boolean": bool, "map": dict, "list": list}

differences = []


def say(what, right, detail=""):
    """Prints the outcome of one check and remembers a wrong one."""
    print(f"{'ok  ' if right else 'FAIL'} {what}{'' if right else ': ' + str(detail)}")
    if not right:
        differences.append(what)


def http(method, url, body=None, headers=None):
    """One request past all proxies; the body as text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return answer.read().decode()


def node_credentials(imds):
    """The node's credentials, the way an agent gets them."""
    session = http("PUT", f"{imds}/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    headers = {"X-aws-ec2-metadata-token": session}
    path = f"{imds}/latest/meta-data/iam/security-credentials/"
    document = json.loads(http("GET", path + http("GET", path, headers=headers), headers=headers))
    return document["AccessKeyId"], document["SecretAccessKey"], document["Token"]


def client(service, url, region, credentials):
    """A botocore client that asks once, goes nowhere else, and keeps the raw answer."""
    unsigned = {} if credentials[0] else {"signature_version": UNSIGNED}
    config = Config(retries={"total_max_attempts": 1}, proxies={}, **unsigned)
    made = botocore.session.Session().create_client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id=credentials[0],
        aws_secret_access_key=credentials[1],
        aws_session_token=credentials[2],
        config=config,
    )
    raw = {}
    made.meta.events.register("before-parse", lambda response_dict, **_: raw.update(response_dict))
    return made, raw


def compare(value, shape, where):
    """Yields every way in which a JSON value is not what the shape says."""
    if shape.type_name in ("list", "map") and isinstance(value, JSON_TYPES[shape.type_name]):
        is_list = shape.type_name == "list"
        for key, item in enumerate(value) if is_list else value.items():
            yield from compare(item, shape.member if is_list else shape.value, f"{where}[{key!r}]")
        return
    if shape.type_name != "structure":
        expected = JSON_TYPES[shape.type_name]
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            yield f"{where} is {type(value).__name__}, the model says {shape.type_name}"
        elif getattr(shape, "enum", []) and value not in shape.enum:
            yield f"{where} is {value!r}, the model has {shape.enum}"
        return
    if not isinstance(value, dict):
        yield f"{where} is {type(value).__name__}, the model says structure"
        return
    for name in shape.required_members:
        if name not in value:
            yield f"{where}.{name} is required and missing"
    for name, member in value.items():
        if name not in shape.members:
            yield f"{where}.{name} is not in the model"
        else:
            yield from compare(member, shape.members[name], f"{where}.{name}")


def refused(call, **arguments):
    """The error a call ends in, or None."""
    try:
        call(**arguments)
    except ClientError as error:
        return error
    return None


def outcome(error):
    """Status and code of an error."""
    if error is None:
        return None
    return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]


def check_success(eks_auth, raw, cluster, token):
    """The success has every required member, right types, nothing else; returns its credentials."""
    answer = eks_auth.assume_role_for_pod_identity(clusterName=cluster, token=token)
    model = eks_auth.meta.service_model.operation_model("AssumeRoleForPodIdentity")
    found = list(compare(json.loads(raw["body"]), model.output_shape, "response"))
    say("eks-auth: the answer is what the model says", not found, "; ".join(found))
    say("eks-auth: the status is the model's", raw["status_code"] == model.http["responseCode"], raw["status_code"])
    say("eks-auth: the expiration is a time", hasattr(answer["credentials"]["expiration"], "year"))
    return answer


def check_modelled_errors(eks_auth, control, cluster, token):
    """Each modelled error, set as a fault, is raised as its own exception with the model's status."""
    model = eks_auth.meta.service_model.operation_model("AssumeRoleForPodIdentity")
    for shape in model.error_shapes:
        status = shape.metadata["error"]["httpStatusCode"]
        effect = {"status": {"status": status, "code": shape.name, "message": "as modelled"}}
        http("PUT", f"{control}/faults", {"service": "eks-auth", "effect": effect, "count": 1})
        error = refused(eks_auth.assume_role_for_pod_identity, clusterName=cluster, token=token)
        right = (
            type(error).__name__ == shape.name
            and outcome(error) == (status, shape.name)
            and error.response["Error"]["Message"] == "as modelled"
        )
        say(f"eks-auth: {shape.name} is raised with {status}", right, repr(error))
    http("DELETE", f"{control}/faults")


def check_own_errors(eks_auth, place, cluster, tokens):
    """What the sandbox refuses of its own accord is refused as the model has it."""
    call = eks_auth.assume_role_for_pod_identity
    good, stranger = tokens
    for what, arguments, expected in [
        ("a forged token", {"clusterName": cluster, "token": good[:-8] + "AAAAAAAA"}, (400, "InvalidTokenException")),
        ("no association", {"clusterName": cluster, "token": stranger}, (404, "ResourceNotFoundException")),
        ("another cluster", {"clusterName": "another", "token": good}, (404, "ResourceNotFoundException")),
        ("not a token", {"clusterName": cluster, "token": "not a token"}, (400, "InvalidParameterException")),
    ]:
        error = refused(call, **arguments)
        right = outcome(error) == expected and isinstance(error, getattr(eks_auth.exceptions, expected[1]))
        say(f"eks-auth: {what} is {expected[0]} {expected[1]}", right, outcome(error))
    key, secret, session = place["credentials"]
    for what, credentials, expected in [
        ("an unknown key", ("ASIAUNKNOWN", secret, session), (403, "UnrecognizedClientException")),
        ("a wrong secret", (key, "wrong", session), (403, "InvalidSignatureException")),
    ]:
        other, _ = client("eks-auth", place["url"], place["region"], credentials)
        error = refused(other.assume_role_for_pod_identity, clusterName=cluster, token=good)
        say(f"eks-auth: {what} is {expected[0]} {expected[1]}", outcome(error) == expected, outcome(error))


def check_sts(url, region, granted):
    """GetCallerIdentity: the identity EKS Auth named, in the model's members; and its three refusals."""
    held = granted["credentials"]
    credentials = held["accessKeyId"], held["secretAccessKey"], held["sessionToken"]
    sts, raw = client("sts", url, region, credentials)
    answer = sts.get_caller_identity()
    arn, role_id = granted["assumedRoleUser"]["arn"], granted["assumedRoleUser"]["assumeRoleId"]
    named = (answer["Arn"], answer["UserId"]) == (arn, role_id)
    say("sts: the identity is the one EKS Auth named", named, answer)
    say("sts: the answer carries a request id", "RequestId" in answer["ResponseMetadata"])
    model = sts.meta.service_model.operation_model("GetCallerIdentity").output_shape
    result = ElementTree.fromstring(raw["body"]).find(f"{STS_NAMESPACE}GetCallerIdentityResult")
    members = {child.tag.removeprefix(STS_NAMESPACE) for child in result}
    say("sts: the members are the model's", members == set(model.members), members)
    for what, wrong, expected in [
        ("an unknown key", ("ASIAUNKNOWN", credentials[1], credentials[2]), (403, "InvalidClientTokenId")),
        ("another session token", (credentials[0], credentials[1], "another"), (403, "InvalidClientTokenId")),
        ("a wrong secret", (credentials[0], "wrong", credentials[2]), (403, "SignatureDoesNotMatch")),
    ]:
        error = refused(client("sts", url, region, wrong)[0].get_caller_identity)
        say(f"sts: {what} is {expected[0]} {expected[1]}", outcome(error) == expected, outcome(error))
    error = refused(sts.get_session_token)
    say("sts: another action is 400 InvalidAction", outcome(error) == (400, "InvalidAction"), outcome(error))


def compare_xml(element, shape, where):
    """Yields every way in which an element of STS's XML is not what the shape says."""
    if shape.type_name == "structure":
        members = {child.tag.removeprefix(STS_NAMESPACE): child for child in element}
        for name in shape.required_members:
            if name not in members:
                yield f"{where}.{name} is required and missing"
        for name, child in members.items():
            if name not in shape.members:
                yield f"{where}.{name} is not in the model"
            else:
                yield from compare_xml(child, shape.members[name], f"{where}.{name}")
        return
    text = element.text or ""
    forms = {"integer": r"\d+", "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"}
    # Patterns with \u ranges are about characters that no answer here has.
    pattern = shape.metadata.get("pattern", ".*")
    pattern = forms.get(shape.type_name, ".*" if "\\u" in pattern else pattern)
    if not re.fullmatch(pattern, text, re.DOTALL):
        yield f"{where} is {text!r}, the model says {shape.type_name} {pattern}"
    if shape.type_name == "string":
        shortest, longest = shape.metadata.get("min", 0), shape.metadata.get("max", sys.maxsize)
        if not shortest <= len(text) <= longest:
            yield f"{where} has {len(text)} characters, the model says {shortest} to {longest}"


def trust(control, issuer, account, subject):
    """Sets the role of these checks: it trusts one service account, as an IRSA role does."""
    name = issuer.removeprefix("https://")
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{account}:oidc-provider/{name}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{name}:sub": subject, f"{name}:aud": "sts.amazonaws.com"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    http("PUT", f"{control}/roles", {"arn": ROLE.format(account=account), "trustPolicy": policy})


def check_web_identity(url, control, overview, tokens):
    """AssumeRoleWithWebIdentity, unsigned: its answer, its modelled errors as faults, and its own refusals."""
    good, wrong_audience = tokens
    region, account, issuer = overview["region"], overview["account"], overview["issuer"]
    sts, raw = client("sts", url, region, (None, None, None))
    trust(control, issuer, account, "system:serviceaccount:default:app")
    arguments = {"RoleArn": ROLE.format(account=account), "RoleSessionName": "app-0", "WebIdentityToken": good}
    call = sts.assume_role_with_web_identity

    answer = call(**arguments)
    model = sts.meta.service_model.operation_model("AssumeRoleWithWebIdentity")
    result = ElementTree.fromstring(raw["body"]).find(f"{STS_NAMESPACE}AssumeRoleWithWebIdentityResult")
    found = list(compare_xml(result, model.output_shape, "response"))
    say("sts: the answer to a web identity is what the model says", not found, "; ".join(found))
    request_id = answer["ResponseMetadata"]["RequestId"]
    say("sts: it carries a request id", raw["headers"].get("x-amzn-requestid") == request_id)
    held = answer["Credentials"]
    who, _ = client("sts", url, region, (held["AccessKeyId"], held["SecretAccessKey"], held["SessionToken"]))
    user, identity = answer["AssumedRoleUser"], who.get_caller_identity()
    same = (identity["Arn"], identity["UserId"]) == (user["Arn"], user["AssumedRoleId"])
    say("sts: the credentials are the session's", same, identity)

    for shape in model.error_shapes:
        status, code = shape.metadata["error"]["httpStatusCode"], shape.metadata["error"]["code"]
        effect = {"status": {"status": status, "code": code, "message": "as modelled"}}
        http("PUT", f"{control}/faults", {"service": "sts", "effect": effect, "count": 1})
        error = refused(call, **arguments)
        right = type(error).__name__ == shape.name and outcome(error) == (status, code)
        say(f"sts: {code} is raised with {status}", right, repr(error))
    http("DELETE", f"{control}/faults")

    for what, changed, expected in [
        ("another audience", {"WebIdentityToken": wrong_audience}, (400, "InvalidIdentityToken")),
        ("a forged token", {"WebIdentityToken": good[:-8] + "AAAAAAAA"}, (400, "InvalidIdentityToken")),
        ("an unknown role", {"RoleArn": ROLE.format(account=account) + "-2"}, (403, "AccessDenied")),
        ("a session that is too long", {"DurationSeconds": 3601}, (400, "ValidationError")),
        ("a policy that is none", {"Policy": "{"}, (400, "MalformedPolicyDocument")),
    ]:
        error = refused(call, **(arguments | changed))
        say(f"sts: {what} is {expected[0]} {expected[1]}", outcome(error) == expected, outcome(error))
    trust(control, issuer, account, "system:serviceaccount:default:other")
    denied = outcome(refused(call, **arguments))
    say("sts: a role that trusts another is 403 AccessDenied", denied == (403, "AccessDenied"), denied)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", default=os.environ.get("SANDBOX_CONTROL_URL"), help="the control port's URL")
    control = parser.parse_args().control
    if not control:
        parser.error("--control or SANDBOX_CONTROL_URL is needed")
    control = control.rstrip("/")

    overview = json.loads(http("GET", f"{control}/"))
    cluster, region, urls = overview["cluster"], overview["region"], overview["urls"]

    def token(**names):
        with open(json.loads(http("POST", f"{control}/pods", names))["tokenFile"], encoding="ascii") as file:
            return file.read()

    good, stranger = token(), token(serviceAccount="shapes-has-no-association")
    place = {"url": urls["eksAuth"], "region": region, "credentials": node_credentials(urls["imds"])}
    eks_auth, raw = client("eks-auth", place["url"], region, place["credentials"])
    granted = check_success(eks_auth, raw, cluster, good)
    check_modelled_errors(eks_auth, control, cluster, good)
    check_own_errors(eks_auth, place, cluster, (good, stranger))
    check_sts(urls["sts"], region, granted)
    web_identity = token(audience="sts.amazonaws.com"), good
    check_web_identity(urls["sts"], control, overview, web_identity)
    admin = json.loads(http("GET", f"{control}/admin"))
    called, raw = client("eks", urls["eks"], region, (admin["accessKeyId"], admin["secretAccessKey"], None))
    eks.check(called, raw, cluster, overview["account"], say, compare)
    print(f"botocore {botocore.__version__}: {len(differences)} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
