"""IAM and S3 of the local EKS: moto, an emulator of AWS, with its enforcement of permissions on.

Started by the sandbox, which writes one line of JSON to our standard input: the account, the region, the key of the one
administrator, and a secret by which it proves that it is the sandbox. We answer with one line, {"port": N}, serve on that
port of 127.0.0.1, and end when standard input does: a sandbox that was killed leaves nothing behind.

moto alone refuses what the sandbox mints, because it knows only sessions of its own STS. So there is one route more,
POST /_sandbox/sessions, by which the sandbox tells of a role it let somebody assume: with its key, secret, token, life and
session policy. From then on moto enforces the policies of that role. Trust policies are read here and not judged: who
assumed a role was judged by the sandbox, which asks moto's IAM for them.

Owns: the seeded administrator, the sessions told of and their end, session policies. Must not know: pods, clusters, EKS.
"""

import hmac
import json
import logging
import os
import sys
import threading
import time
import warnings

SESSIONS = "/_sandbox/sessions"
# What moto answers without asking who wants it: its own state, and a metadata service that is not the node's.
CLOSED = ("/moto-api", "/latest/", "/favicon.ico")

setup = json.loads(sys.stdin.readline())
# Before moto is imported: it reads them then. Zero calls are let through unauthenticated.
# The managed policies are those of AWS, which roles of add-ons are given. boto3 must find a region, though it calls no AWS.
os.environ.update(INITIAL_NO_AUTH_ACTION_COUNT="0", MOTO_ACCOUNT_ID=setup["account"],
                  MOTO_IAM_LOAD_MANAGED_POLICIES="true", AWS_DEFAULT_REGION=setup["region"])
warnings.simplefilter("ignore")
from moto.iam.access_control import AssumedRoleAccessKey, IAMPolicy, IAMRequestBase, PermissionResult  # noqa: E402
from moto.iam.exceptions import NotFoundException  # noqa: E402
from moto.iam.models import AccessKey, IAMBackend, iam_backends  # noqa: E402
from moto.iam.policy_validation import IAMTrustPolicyDocumentValidator  # noqa: E402
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app  # noqa: E402
from moto.sts.models import AssumedRole, sts_backends  # noqa: E402
from moto.utilities.utils import get_partition  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402
from werkzeug.wrappers import Request, Response  # noqa: E402

PARTITION = get_partition(setup["region"])
iam = iam_backends[setup["account"]][PARTITION]
sts = sts_backends[setup["account"]][PARTITION]
ends = {}  # When the sessions of the sandbox end, by their access key and on the monotonic clock.


def key(user, access_key_id, secret_access_key):
    """An access key of moto's with our id and secret instead of random ones."""
    made = AccessKey(user, prefix="AKIA", account_id=setup["account"])
    made.access_key_id, made.secret_access_key = access_key_id, secret_access_key
    iam.access_keys[access_key_id] = made
    return made


def seed_admin(name, access_key_id, secret_access_key):
    """The administrator, who may do everything: who has the sandbox has its account."""
    user = iam.create_user(setup["region"], name)
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    user.put_policy("everything", json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    user.access_keys.append(key(name, access_key_id, secret_access_key))


def learn(session):
    """A role that the sandbox let somebody assume."""
    access_key = key(None, session["accessKeyId"], session["secretAccessKey"])
    access_key.role_arn = session["roleArn"]
    role = AssumedRole(
        account_id=setup["account"], region_name=setup["region"], access_key=access_key,
        role_session_name=session["sessionName"], role_arn=session["roleArn"], policy=session.get("policy"),
        duration=int(session["lifetimeSeconds"]), external_id=None)
    role.session_token = session["sessionToken"]
    sts.assumed_roles.append(role)
    ends[role.access_key_id] = time.monotonic() + float(session["lifetimeSeconds"])


def forget_the_lapsed():
    """Sessions an hour past their end: until then their holder gets "expired" and not "unknown"."""
    forgotten = {access_key_id for access_key_id, end in ends.items() if end < time.monotonic() - 3600}
    sts.assumed_roles[:] = [role for role in sts.assumed_roles if role.access_key_id not in forgotten]
    for access_key_id in forgotten:
        del ends[access_key_id], iam.access_keys[access_key_id]


def narrow(check=IAMRequestBase.check_action_permitted):
    """Session policies, which moto keeps and does not enforce: a session may do what role and session policy both allow."""
    def permitted(self, resource):
        try:
            check(self, resource)
        except NotFoundException:  # The role was deleted after it was assumed.
            self._raise_access_denied()
        if isinstance(self._access_key, AssumedRoleAccessKey):
            held = sts.get_assumed_role_from_access_key(self._access_key._access_key_id)
            if held is not None and held.policy:
                if IAMPolicy(held.policy).is_action_permitted(self._action, resource) != PermissionResult.PERMITTED:
                    self._raise_access_denied()
    IAMRequestBase.check_action_permitted = permitted


def read_trust(create=IAMBackend.create_role):
    """Refuses a trust policy that is none where a role is made. moto itself does that only where a policy is changed."""
    IAMBackend.create_role = lambda self, name, document, *rest: (
        IAMTrustPolicyDocumentValidator(document).validate() or create(self, name, document, *rest))


def refusal(status, code, message):
    return Response(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", status, mimetype="text/xml")


class Front:
    """Stands before moto: our one route, and what moto does not refuse by itself."""

    def __init__(self, moto):
        self.moto = moto

    def __call__(self, environ, start_response):
        return (self.own(Request(environ)) or self.moto)(environ, start_response)

    def own(self, request):
        """Our answer; None is moto's affair."""
        authorization = request.headers.get("authorization", "")
        if request.path == SESSIONS:
            if request.method != "POST" or not hmac.compare_digest(authorization, setup["secret"]):
                return refusal(403, "AccessDenied", "This route is the sandbox's own.")
            forget_the_lapsed()
            learn(request.get_json(force=True))
            return Response(status=204)
        if request.path.startswith(CLOSED) or not authorization.startswith("AWS4-HMAC-SHA256 Credential="):
            return refusal(403, "AccessDenied", "Access Denied")
        end = ends.get(authorization.partition("Credential=")[2].partition("/")[0])
        if end is not None and end <= time.monotonic():
            return refusal(400, "ExpiredToken", "The provided token has expired.")
        return None


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    seed_admin(**setup["admin"])
    narrow()
    read_trust()
    front = Front(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # With the sandbox.
    print(json.dumps({"port": server.server_port}), flush=True)
    server.serve_forever()


main()
