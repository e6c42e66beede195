#!/usr/bin/env bash
# Builds the image without an engine, as root on Debian: buildah in chroot isolation, on bases made by debootstrap.
#
#   build.sh          target/image/pod-identity-agent.tar, a docker-archive, and the program in it beside it;
#                     PROFILE=trial for an image to test with. Does nothing when they are there already and nothing
#                     that goes into them has changed
#   build.sh twice    builds in any case, and fails unless a second build from nothing is the same image
#   build.sh base     only the base that the program runs on, which has to be made once
#
# PROGRAM=FILE puts this program into the image, and compiles none: one that was compiled on this release of Debian.
#
# The steps are those of the Dockerfile. What differs from a build on the public bases: the builder is Debian's gcc and
# this machine's Rust toolchain and crates, mounted read-only and offline. So it is the pinned compiler and what
# Cargo.lock names, but not bit for bit the image that the public bases give.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly suite=bookworm
readonly name=localhost/pod-identity-agent cache=$PWD/.cache/image out=$PWD/target/image
readonly archive=$out/pod-identity-agent.tar
readonly profile=${PROFILE:-release} given=${PROGRAM:-}
# All that goes into the image, and what makes it. Of the tests only the manifests count: the workspace names them.
readonly inputs=(agent Cargo.toml Cargo.lock rust-toolchain.toml LICENSE Dockerfile .dockerignore deploy/image
    ':(glob)tests/**/Cargo.toml')
container=
scratch=

buildah() {
    # vfs asks nothing of the kernel; its own storage, so that images of the machine's owner are not touched.
    command buildah --root "$cache/storage" --runroot "$cache/run" --storage-driver vfs "$@"
}

cleanup() {
    [[ -z $container ]] || buildah rm "$container" >/dev/null || true
    [[ -z $scratch ]] || rm -rf "$scratch"
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

id_of() {
    buildah inspect --type image --format '{{.FromImageID}}' "$1"
}

# The commit that last changed the image, so that one which does not touch it leaves it the same.
revision_of_inputs() {
    echo "$(git log -1 --format=%H -- "${inputs[@]}")$([[ -z $(git status --porcelain -- "${inputs[@]}") ]] || echo -modified)"
}

# What the image would be made from, committed or not, in one hash.
content_key() {
    git ls-files -z --cached --others --exclude-standard -- "${inputs[@]}" >"$out/inputs"
    {
        echo "$profile $(revision_of_inputs) $(id_of "$runtime") $made_by"
        # A file that is deleted but still in the index shows by its absence.
        sort --zero-terminated --unique "$out/inputs" | xargs --null sha256sum 2>/dev/null || true
    } | sha256sum | cut -d ' ' -f 1
}

# The first stage compiles: compile TARGET, where TARGET is cargo's target folder; its compiled dependencies are used again.
compile() {
    local sysroot
    # Of this folder, so that rust-toolchain.toml decides.
    sysroot=$(rustc --print sysroot)
    cargo fetch --locked --quiet
    mkdir -p "$1"
    # Cargo goes by the times of files, which say nothing when a checkout goes back to older ones.
    rm -rf "$1"/*/.fingerprint/pod-identity-agent-*
    build --volume "$sysroot:/opt/rust:ro" --volume "$1:/build:rw" \
        --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry:ro" --build-arg BUILDER="$builder"
}

# A folder takes the place of the first stage, by the stage's name, and nothing is compiled.
use_program() {
    rm -rf "$out/given"
    mkdir "$out/given"
    strip --strip-all -o "$out/given/pod-identity-agent" "$given"
    build --build-context build="$out/given"
}

# All stages, with what is said of the first one.
build() {
    local epoch
    epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct -- "${inputs[@]}")}
    # oci: the docker format has the random name of the container that the image was made in. No label of the builder, so
    # that another version of it can make the same image.
    buildah bud --isolation chroot --format oci --identity-label=false --layers=false --force-rm --pull-never --quiet \
        --timestamp "$epoch" "$@" --build-arg RUNTIME="$runtime" --build-arg PROFILE="$profile" \
        --build-arg SOURCE_DATE_EPOCH="$epoch" --build-arg REVISION="$(revision_of_inputs)" \
        --build-arg VERSION="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" \
        --tag "$name:$profile" . >"$out/id" 2>"$out/build.log" || { cat "$out/build.log" >&2; return 1; }
}

# A configuration holds the hashes of its layers, and its own hash is the image's id.
is_the_same_again() {
    local first config
    first=$(<"$out/id")
    config=$(buildah inspect --type image --format '{{.Config}}' "$name:$profile")
    scratch=$(mktemp -d "$cache/again.XXXXXX")
    compile "$scratch"
    [[ $(<"$out/id") == "$first" ]] || {
        echo "built twice, two images: $first and $(<"$out/id")" >&2
        diff <(tr , '\n' <<<"$config") \
            <(buildah inspect --type image --format '{{.Config}}' "$name:$profile" | tr , '\n') >&2
        return 1
    }
    echo "built twice, one image"
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
    printf '%10s bytes  %s\n' "$(stat -c %s "$archive")" "docker-archive, uncompressed" \
        "$(gzip -9 <"$archive" | wc -c)" "the same with gzip, as a registry keeps it"
    for part in pod-identity-agent usr/sbin/nft etc/ssl LICENSE; do
        printf '%10s bytes  /%s\n' "$(du -sb --apparent-size "$tree/$part" | cut -f 1)" "$part"
    done
    find "$tree" -name '*.so*' -printf '%s %f\n' | awk '{ bytes += $1; printf "%10d bytes  %s\n", $1, $2 }
        END { printf "%10d bytes  all libraries\n", bytes }'
}

case ${1:-} in
'' | twice | base) ;;
*)
    echo "usage: $0 [twice | base]" >&2
    exit 64
    ;;
esac
if [[ ${1:-} == twice && -n $given ]]; then
    echo "twice compiles it twice: PROGRAM is not for that" >&2
    exit 64
fi
programs
mkdir -p "$cache" "$out"
# One at a time: the storage, cargo's target and the archive are the same for all.
exec 9>"$cache/lock"
flock 9
# Made once; remove .cache/image for newer packages.
readonly runtime=localhost/base-runtime:$suite builder=localhost/base-builder:$suite
buildah inspect --type image "$runtime" >/dev/null 2>&1 || make_runtime_base "$runtime"
[[ ${1:-} != base ]] || exit 0
if [[ -n $given ]]; then
    made_by=$(sha256sum <"$given")
else
    buildah inspect --type image "$builder" >/dev/null 2>&1 || make_builder_base "$builder" "$runtime"
    made_by=$(id_of "$builder")
fi
readonly made_by
key=$(content_key)
if [[ ${1:-} != twice && -f $archive && -f $out/pod-identity-agent && -f $out/made-from && $(<"$out/made-from") == "$key" ]]; then
    echo "$archive: $name:$profile, image $(<"$out/id"), as it was; $SECONDS s"
    exit 0
fi
# Without its key an archive counts as not made, so an interrupted one is made again.
rm -f "$out/made-from"
if [[ -n $given ]]; then
    use_program
else
    # What one compiler and one C library have made is of no use to others.
    compile "$cache/target-${made_by:0:12}"
fi
[[ ${1:-} != twice ]] || is_the_same_again
# Complete or not there: others read it.
rm -f "$archive.part"
buildah push --quiet "$name:$profile" "docker-archive:$archive.part:$name:$profile"
start_from "$name:$profile"
tree=$(buildah mount "$container")
try_out "$tree"
# Beside the archive, for who wants the program alone.
cp "$tree/pod-identity-agent" "$out/pod-identity-agent.part"
mv "$out/pod-identity-agent.part" "$out/pod-identity-agent"
mv "$archive.part" "$archive"
echo "$key" >"$out/made-from"
# Those that this one took the name from.
buildah rmi --prune >/dev/null
echo "$archive: $name:$profile, image $(<"$out/id")"
sizes "$tree"
echo "$SECONDS s"
