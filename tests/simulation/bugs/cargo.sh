#!/usr/bin/env bash
# Cargo for the simulation, in a copy of the tree that has the planted bugs. The tree itself has none.
#
#   tests/simulation/bugs/cargo.sh test --test planted         four of the bugs; with BUGS=all, all of them
#   tests/simulation/bugs/cargo.sh run -- 1 crowd 80 NoLimit   one story with one bug
#
# The copy is target/planted: the files of the tree with switch.patch and then every other patch of this folder. It is
# compiled into the target directory of the tree, so dependencies are compiled once. A file of the copy is written
# only when its text changed, so cargo compiles no more than it must. The feature `planted`, which switch.patch gives
# the agent too, keeps what is compiled here apart from what the tree compiles: cargo tells two copies of a crate in
# one target directory by their features, not by where they are.
#
# A patch that no longer applies is made again, as a diff against the tree:
#   git apply --reject tests/simulation/bugs/X.patch    # and plant by hand what was rejected
#   git diff -U1 -- agent >tests/simulation/bugs/X.patch && git checkout -- agent
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly tree=$PWD patches=$PWD/tests/simulation/bugs copy=$PWD/target/planted

if (($# == 0)); then
    echo "usage: tests/simulation/bugs/cargo.sh test|run|clippy [arguments for cargo]" >&2
    exit 64
fi

fail() {
    echo "planted bugs: $1" >&2
    exit 1
}

mkdir -p "$copy"
# One at a time, because the copy must not change while cargo reads it: cargo inherits the lock.
exec 9>"$copy.lock"
flock 9
staging=$(mktemp -d "$copy.XXXXXX")
trap 'rm -rf "$staging"' EXIT

git ls-files -z --cached --others --exclude-standard --deduplicate >"$copy.files"
mapfile -d '' -t listed <"$copy.files"
files=()
for file in "${listed[@]}"; do
    # Git still lists a file that was deleted without a commit.
    [[ ! -f $file ]] || files+=("$file")
done
((${#files[@]})) || fail "git lists no files in $tree, so there is nothing to copy"
cp --parents --target-directory "$staging" -- "${files[@]}"

# Git must not find the repository around the copy: it would take the paths for those of the repository, and leave the
# copy as it is without an error.
plant() {
    (
        cd "$staging"
        unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX
        GIT_CEILING_DIRECTORIES=$(dirname "$staging") git apply "$patches/$1.patch"
    ) || fail "$1.patch does not apply to the tree (how to make it again: the head of tests/simulation/bugs/cargo.sh)"
}

plant switch
for patch in "$patches"/*.patch; do
    bug=$(basename "$patch" .patch)
    [[ $bug != switch ]] || continue
    plant "$bug"
    grep -rqF "planted::is_on(\"$bug\")" "$staging/agent/src" || fail "$bug.patch plants no bug of that name"
done

# The copy follows, file by file.
(cd "$staging" && find . -type f -print0) | while IFS= read -r -d '' file; do
    cmp -s "$staging/$file" "$copy/$file" && continue
    mkdir -p "$(dirname "$copy/$file")"
    cp "$staging/$file" "$copy/$file"
done
(cd "$copy" && find . -type f -print0) | while IFS= read -r -d '' file; do
    [[ -f $staging/$file ]] || rm "$copy/$file"
done
rm -rf "$staging"

CARGO_TARGET_DIR=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR
subcommand=$1
shift
cd "$copy"
# The features of the dependencies are those of all packages that are compiled together: tests are compiled with the whole
# workspace, as `make test` did before, so that no dependency is compiled a second time.
packages=(-p simulation --features planted)
[[ $subcommand != test ]] || packages=(--workspace --features simulation/planted)
exec cargo --config tests/simulation/optimized.toml "$subcommand" --locked "${packages[@]}" "$@"
