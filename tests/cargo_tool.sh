#!/usr/bin/env bash
# Prints the folder of a program of crates.io, which it builds once into .cache: cargo_tool.sh NAME VERSION
#
# A debug build: quickly made, and quick enough for what it is used for here.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly name=$1 version=$2
# The folder's name is all that goes into the build, so a changed version is a new folder and never a stale one.
tool_dir=".cache/$name-$version-$(rustc --version | cut -d ' ' -f 2)"
readonly tool_dir
if [[ ! -x $tool_dir/bin/$name ]]; then
    echo "building $name $version (once, about a minute)" >&2
    # Built under another name and moved, so that an interrupted build is not taken for a whole one.
    mkdir -p .cache
    building=$(mktemp -d ".cache/$name.XXXXXX")
    if ! CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$building" "$name@$version" >&2; then
        rm -rf "$building"
        exit 1
    fi
    rm -rf "$tool_dir"
    mv "$building" "$tool_dir"
fi
echo "$tool_dir"
