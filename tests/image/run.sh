#!/usr/bin/env bash
# Checks the image as far as that goes without an engine and a registry: the Dockerfile is linted, and what it puts together is
# put together here and run, with nothing else of the machine in reach.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly tools=target/image-tools
readonly root=target/image/rootfs
readonly agent=target/debug/pod-identity-agent

key=$({ python3 --version; cat tests/image/requirements.txt; } | sha256sum | cut -d ' ' -f 1)
if [[ ! -f $tools/made-from || $(<"$tools/made-from") != "$key" ]]; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --no-input --require-hashes -r tests/image/requirements.txt
    echo "$key" >"$tools/made-from"
fi
"$tools/bin/hadolint" Dockerfile

deploy/image/rootfs.sh "$agent" LICENSE "$root"
# A network namespace of its own, so that nft may list; and a root that has nothing but the image.
inside() {
    if [[ $EUID -eq 0 ]]; then
        unshare --net chroot "$root" "$@"
    else
        unshare --user --map-root-user --net chroot "$root" "$@"
    fi
}
inside /pod-identity-agent version
# As kubectl exec finds it.
inside /usr/bin/pod-identity-agent version
inside /pod-identity-agent cleanup
inside /usr/sbin/nft --json list ruleset >/dev/null
if inside /bin/sh -c true 2>/dev/null; then
    echo "there is a shell in the image" >&2
    exit 1
fi
# Twice the same: contents, modes and times.
digest() { (cd "$root" && tar --sort=name --owner=0 --group=0 --numeric-owner -cf - . | sha256sum); }
first=$(digest)
deploy/image/rootfs.sh "$agent" LICENSE "$root"
[[ $first == "$(digest)" ]] || { echo "two runs of rootfs.sh differ" >&2; exit 1; }
du --summarize --human-readable --exclude=pod-identity-agent "$root" | awk '{ print "the image without the agent itself: " $1 }'
