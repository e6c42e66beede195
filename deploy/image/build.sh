#!/usr/bin/env bash
# Builds the image without an engine, as root on Debian: buildah in chroot isolation, on bases made by debootstrap.
#
#   build.sh          target/image/pod-identity-agent.tar, a docker-archive; PROFILE=dev for an image to test with
#
# The steps are those of the Dockerfile. What differs from a build on the public bases: the builder is Debian's gcc and
# this machine's Rust toolchain and crates, mounted read-only and offline. So it is the pinned compiler and what
# Cargo.lock names, but not bit for bit the image that the public bases give.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly suite=bookworm
readonly name=localhost/pod-identity-agent cache=$PWD/.cache/image out=$PWD/target/image
readonly profile=${PROFILE:-release}
container=

buildah() {
    # vfs asks nothing of the kernel; its own storage, so that images of the machine's owner are not touched.
    nice -n 19 buildah --root "$cache/storage" --runroot "$cache/run" --storage-driver vfs "$@"
}

cleanup() {
    [[ -z $container ]] || buildah rm "$container" >/dev/null || true
}
trap cleanup EXIT

programs() {
    local missing=() program
    for program in buildah debootstrap; do
        type -P "$program" >/dev/null || missing+=("$program")
    done
    ((EUID == 0)) || { echo "root is needed for debootstrap and chroot" >&2; return 1; }
    ((${#missing[@]})) || return 0
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}" ||
        { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; }
}

start_from() {
    container=$(buildah from --pull-never "$1")
}

commit_as() {
    buildah commit --quiet --rm "$container" "$1" >/dev/null
    container=
}

# The archives of this suite that apt knows here, its updates too: "URI SUITE".
archives() {
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' "Created-By: Packages" | sort -u |
        awk -v suite="$suite" 'index($2, suite) == 1'
}

make_runtime_base() {
    start_from scratch
    local tree
    tree=$(buildah mount "$container")
    # From where this machine has its own packages.
    debootstrap --variant=minbase "$suite" "$tree" "$(archives | awk -v suite="$suite" '$2 == suite { print $1; exit }')" \
        >"$out/debootstrap.log"
    archives | awk '{ print "deb", $1, $2, "main" }' >"$tree/etc/apt/sources.list"
    buildah umount "$container" >/dev/null
    commit_as "$1"
}

make_builder_base() {
    start_from "$2"
    buildah run --isolation chroot "$container" -- sh -ec 'apt-get update --quiet
        apt-get install --yes --quiet --no-install-recommends gcc libc6-dev' >"$out/builder.log"
    buildah config --env PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin --env CARGO_HOME=/usr/local/cargo \
        --env CARGO_NET_OFFLINE=true "$container"
    commit_as "$1"
}

build() {
    local sysroot epoch
    # Of this folder, so that rust-toolchain.toml decides.
    sysroot=$(rustc --print sysroot)
    epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
    cargo fetch --locked --quiet
    buildah bud --isolation chroot --format docker --layers=false --force-rm --pull-never --quiet \
        --timestamp "$epoch" --volume "$sysroot:/opt/rust:ro" \
        --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry:ro" \
        --build-arg BUILDER="$builder" --build-arg RUNTIME="$runtime" --build-arg PROFILE="$profile" \
        --build-arg SOURCE_DATE_EPOCH="$epoch" --build-arg REVISION="$(git rev-parse HEAD)" \
        --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" \
        --tag "$name:$profile" . >"$out/id"
}

# Both programs start on the image's own libraries, and nothing in it is a shell.
try_out() {
    local tree=$1 shell
    chroot "$tree" /pod-identity-agent --help >/dev/null
    unshare --net chroot "$tree" /usr/sbin/nft list ruleset
    shell=$(find "$tree" -type f \( -name '*sh' -o -name busybox \) -perm /111)
    [[ -z $shell ]] || { echo "there is a shell in the image: $shell" >&2; return 1; }
}

sizes() {
    local tree=$1 part
    printf '%10s bytes  %s\n' "$(stat -c %s "$out/pod-identity-agent.tar")" "docker-archive, uncompressed" \
        "$(gzip -9 <"$out/pod-identity-agent.tar" | wc -c)" "the same with gzip, as a registry keeps it"
    for part in pod-identity-agent usr/sbin/nft etc/ssl LICENSE; do
        printf '%10s bytes  /%s\n' "$(du -sb --apparent-size "$tree/$part" | cut -f 1)" "$part"
    done
    find "$tree" -name '*.so*' -printf '%s %f\n' | awk '{ bytes += $1; printf "%10d bytes  %s\n", $1, $2 }
        END { printf "%10d bytes  all libraries\n", bytes }'
}

programs
mkdir -p "$cache" "$out"
# Made once; remove .cache/image for newer packages.
readonly runtime=localhost/base-runtime:$suite builder=localhost/base-builder:$suite
buildah inspect --type image "$runtime" >/dev/null 2>&1 || make_runtime_base "$runtime"
buildah inspect --type image "$builder" >/dev/null 2>&1 || make_builder_base "$builder" "$runtime"
build
rm -f "$out/pod-identity-agent.tar"
buildah push --quiet "$name:$profile" "docker-archive:$out/pod-identity-agent.tar:$name:$profile"
start_from "$name:$profile"
tree=$(buildah mount "$container")
try_out "$tree"
echo "$out/pod-identity-agent.tar: $name:$profile, image $(<"$out/id")"
sizes "$tree"
