"""Foreign crates are named in one place each, so that a new version of one changes one folder. Tests may name any."""

import re

from rust import product_files
from tree import Problem, line_of

ROOT = "agent/src/"

# A crate, or the beginning of its name with a star, and the places under agent/src that may name it.
PLACES = {
    # The endpoint serves with hyper; `outgoing` is a client of it. A request's body is named by those who send one.
    "hyper": ("server/", "outgoing/"),
    "hyper_util": ("server/", "outgoing/"),
    "http_body_util": ("server/", "outgoing/", "identity/keys/fetch.rs", "aws/http_client.rs", "kubernetes/"),
    "socket2": ("server/", "node/other_agents.rs"),
    # The AWS SDK.
    "aws_sdk_*": ("aws/", "credentials/source/"),
    "aws_config": ("aws/",),
    "aws_credential_types": ("aws/", "credentials/source/"),
    "aws_runtime": ("aws/",),
    "aws_smithy_*": ("aws/", "credentials/source/"),
    "aws_types": ("aws/",),
    # Signatures and digests of tokens, and the key of the agent's own probes.
    "aws_lc_rs": ("identity/", "node/self_probe/", "workload/", "association/"),
    "rustls": ("outgoing/",),
    "rustls_native_certs": ("outgoing/",),
    "tokio_rustls": ("outgoing/",),
    "webpki": ("config/",),
    "rustls_pki_types": ("config/", "outgoing/"),
    "rtnetlink": ("node/",),
    "netlink_*": ("node/",),
    "caps": ("lifecycle/privileges.rs", "node/self_probe/"),
    "prometheus_client": ("telemetry/metrics/",),
    "tracing_subscriber": ("telemetry/",),
    "moka": ("credentials/store/",),
    "clap": ("cli.rs", "cli/", "command/"),
    "fastrand": ("rng.rs",),
    "kube": ("kubernetes/",),
    "k8s_openapi": ("kubernetes/",),
}

NAMED = re.compile(r"(?<![\w:])([a-z]\w*)(?=::)|\buse +([a-z]\w*)(?= +as\b|;)")


def places_of(crate):
    """Where a crate may be named; nothing for those that may be named anywhere, and for modules of ours."""
    for name, places in PLACES.items():
        if crate == name or (name.endswith("*") and crate.startswith(name[:-1])):
            return places
    return None


def check(tree):
    for path, code in product_files(tree, ROOT):
        inside = path.removeprefix(ROOT)
        for found in NAMED.finditer(code):
            crate = found[1] or found[2]
            places = places_of(crate)
            if places and not inside.startswith(places):
                text = f"{crate} is named only under {', '.join(places)}"
                yield Problem("crate", path, line_of(code, found.start()), text)
