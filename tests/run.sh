#!/usr/bin/env bash
# Everything a change must pass, in the order in which it fails soonest. What a user who is not root cannot run is named in the last line.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly venv=.cache/venv
# Everybody but root has to leave the cluster out, and be told so.
without_cluster=false
[[ -z ${WITHOUT_CLUSTER:-} ]] || without_cluster=true
readonly without_cluster

# program:package, of which the tests of node, image and clients need every one. iptables has both iptables-nft and iptables-legacy.
readonly programs=(ip:iproute2 nft:nftables iptables-nft:iptables iptables-legacy:iptables unshare:util-linux
    nsenter:util-linux setpriv:util-linux mount:mount update-ca-certificates:ca-certificates
    javac:default-jdk-headless mvn:maven)
# Debian keeps most of them where a user's PATH does not look.
export PATH="$PATH:/usr/sbin:/sbin"

work=$(mktemp -d)
venv_job=
clients_job=
packages_job=
servers_job=
images_job=
cluster_job=
papers_job=
runner=
passed=0

cleanup() {
    local job
    for job in $venv_job $clients_job $packages_job $servers_job $images_job $cluster_job $papers_job; do
        # Each is a process group, so that what it has started goes too.
        kill -- "-$job" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

# Runs one stage; the first that fails ends the run with its name.
stage() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    if ! "$@"; then
        echo "FAILED: $name, after $((SECONDS - start)) s" >&2
        exit 1
    fi
    echo "-- $name: $((SECONDS - start)) s"
}

# A stage that is one check and has no result lines of its own.
check() {
    stage "$@"
    passed=$((passed + 1))
}

# A stage of cargo tests, counted from cargo's own result lines.
tests() {
    stage "$@"
    local counts
    # "test result: ok. 52 passed; 0 failed; 0 ignored; ..."
    counts=$(awk '/^test result: / { passed += $4; ignored += $8 } END { print passed + 0, ignored + 0 }' "$work/tests")
    if [[ ${counts% *} -eq 0 ]]; then
        echo "FAILED: $1: cargo ran no test at all" >&2
        exit 1
    fi
    [[ ${counts#* } -eq 0 ]] || echo "note: ${counts#* } tests of this stage are marked as ignored and did not run"
    passed=$((passed + ${counts% *}))
}

toolchain() {
    local missing=()
    command -v rustup >/dev/null || missing+=("rustup (https://rustup.rs)")
    command -v cc >/dev/null || missing+=("a C compiler (Debian: build-essential)")
    command -v git >/dev/null || missing+=("git (Debian: git)")
    command -v curl >/dev/null || missing+=("curl (Debian: curl)")
    command -v go >/dev/null || missing+=("Go 1.26 or newer (https://go.dev/dl)")
    # Debian 12 has an older one than the AWS SDK for JavaScript takes.
    [[ $(node --version 2>/dev/null) =~ ^v([0-9]+) && ${BASH_REMATCH[1]} -ge 20 ]] && command -v npm >/dev/null ||
        missing+=("Node.js 20 or newer with npm (https://nodejs.org)")
    command -v pgrep >/dev/null || missing+=("pgrep (Debian: procps)")
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("Python 3 with venv (Debian: python3-venv)")
    if ((${#missing[@]})); then
        printf 'this machine lacks %s\n' "${missing[@]}" >&2
        return 1
    fi
    if ((EUID != 0)) && ! $without_cluster; then
        echo "the cluster tests need root, to mount, make namespaces and run containers. Without them: make test" \
            "WITHOUT_CLUSTER=1, which says at its end that they are missing" >&2
        return 1
    fi
    # rustup reads rust-toolchain.toml; the first call may have to install what it names.
    if ! rustc --version || ! cargo fmt --version || ! cargo clippy --version; then
        echo "the toolchain in rust-toolchain.toml cannot be used; try: rustup toolchain install" >&2
        return 1
    fi
}

venv_is_made() {
    local status=0
    wait "$venv_job" || status=$?
    venv_job=
    cat "$work/venv"
    return "$status"
}

clients_are_built() {
    local status=0
    wait "$clients_job" || status=$?
    clients_job=
    cat "$work/clients"
    return "$status"
}

missing_packages() {
    local entry
    for entry in "${programs[@]}"; do
        command -v "${entry%%:*}" >/dev/null || echo "${entry##*:}"
    done | sort -u
}

# What the distribution has, in the version it has; nothing is downloaded where nothing is missing.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "this machine lacks the Debian packages ${missing[*]}; as root: apt-get install ${missing[*]}"
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    # An old list is good enough where it still leads somewhere.
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}" ||
        { apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; } || return 1
    hash -r
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || { echo "installed, and still without programs of ${missing[*]}"; return 1; }
}

servers_are_there() {
    local status=0
    wait "$servers_job" || status=$?
    servers_job=
    cat "$work/servers"
    return "$status"
}

images_are_there() {
    local status=0
    wait "$images_job" || status=$?
    images_job=
    cat "$work/images"
    return "$status"
}

# On one cluster the tests are one after the other, and mostly wait for rollouts: so there are three. Those of whole installations have
# one, those of what pods see have one, and one has all others. Two of these make clusters of their own. The one about the API server
# takes as long as all others, so it has a thread to itself: two waiting for their turn must not keep it off.
on_clusters() {
    local installations=(amazon mistakes removal update) pods=(identities injection metadata rights status walk)
    local group lane failed=0
    local -a others=() lanes=()
    for group in "${installations[@]}" "${pods[@]}"; do others+=(--skip "cluster::$group"); done
    "$1" cluster:: --test-threads 3 "${others[@]}" &
    lanes+=($!)
    "$1" --test-threads 1 "${installations[@]/#/cluster::}" &
    lanes+=($!)
    "$1" --test-threads 1 "${pods[@]/#/cluster::}" &
    lanes+=($!)
    for lane in "${lanes[@]}"; do wait "$lane" || failed=1; done
    return "$failed"
}

# Waits until a job has ended, however it has: whether it did well is asked later, by the stage of that name.
after() {
    local job
    for job in "$@"; do
        while kill -0 "$job" 2>/dev/null; do sleep 1; done
    done
}

# The SDKs of the matrix; those for Rust and Python are built elsewhere.
clients() {
    local client
    for client in go javascript java crt; do "tests/clients/$client/prepare.sh" || return 1; done
}

# The program itself, so that cargo, which compiles other things meanwhile, does not keep them waiting.
end_to_end_program() {
    end_to_end --no-run --message-format json 2>/dev/null | sed -n 's/.*"name":"e2e".*"executable":"\([^"]*\)".*/\1/p'
}

start_cluster_tests() {
    local program
    program=$(end_to_end_program)
    [[ -x $program ]] || { echo "cargo names no program of the end-to-end tests" >&2; return 1; }
    set -m
    { after "$servers_job" && cd tests/e2e && on_clusters "$program"; } >"$work/cluster" 2>&1 </dev/null &
    cluster_job=$!
    set +m
}

cluster_tests_end() {
    local status=0
    wait "$cluster_job" || status=$?
    cluster_job=
    tee "$work/tests" <"$work/cluster"
    return "$status"
}

# What is read and not run.
papers() {
    tests/chart/run.sh && tests/deny.sh policy
}

papers_are_right() {
    local status=0
    wait "$papers_job" || status=$?
    papers_job=
    cat "$work/papers"
    return "$status"
}

packages_are_there() {
    local status=0
    wait "$packages_job" || status=$?
    packages_job=
    cat "$work/packages"
    return "$status"
}

# The node tests make network and mount namespaces. Whoever may not, may in a user namespace of his own, on kernels that
# allow it; where nothing allows it, this fails: a test that cannot run has not passed.
namespaces() {
    unshare --net --mount true 2>/dev/null && return 0
    local own=(unshare --user --map-root-user --mount --)
    if ! "${own[@]}" unshare --net --mount true; then
        echo "no network namespace can be made here, neither as this user nor in a user namespace: run as root, or allow" \
            "user namespaces (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)" >&2
        return 1
    fi
    local triple
    triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    # Cargo starts each test binary by this: only they are in the user namespace, cargo is not.
    runner="CARGO_TARGET_${triple}_RUNNER=${own[*]}"
    echo "the end-to-end tests run in a user namespace"
}

end_to_end() {
    cargo test --locked --no-fail-fast --workspace --test e2e "$@"
}

end_to_end_tests() {
    end_to_end "$@" 2>&1 | tee "$work/tests"
}

# Doc tests are never among the targets that are named.
unit_tests() {
    cargo test --locked --no-fail-fast --workspace --lib --bins --test sandbox 2>&1 | tee "$work/tests" &&
        cargo test --locked --no-fail-fast --workspace --doc 2>&1 | tee --append "$work/tests"
}

# gives_way PRIORITY COMMAND...: beside the cluster, which is to have a processor whenever it wants one.
gives_way() {
    local priority=$1
    shift
    (renice --priority "$priority" --pid "$BASHPID" >/dev/null && "$@")
}

# Both in the copy that has the bugs, all of them switched off in the stories: the agent is compiled once for both, and not twice.
# make nightly tells the stories on the tree itself.
simulation() {
    tests/simulation/bugs/cargo.sh test --no-fail-fast --test stories --test planted 2>&1 | tee "$work/tests"
}

check "toolchain" toolchain
# Downloads while cargo compiles, and Kubernetes compiles mostly on what cargo leaves of the processors. Each is a process group.
set -m
{ tests/clients/python/prepare.sh && tests/sandbox/moto/prepare.sh && tests/chart/run.sh --prepare; } >"$work/venv" 2>&1 </dev/null &
venv_job=$!
{ install_packages && { $without_cluster || tests/cluster/prepare.sh packages; }; } >"$work/packages" 2>&1 </dev/null &
packages_job=$!
{ after "$packages_job" && clients; } >"$work/clients" 2>&1 </dev/null &
clients_job=$!
if ! $without_cluster; then
    tests/cluster/prepare.sh servers >"$work/servers" 2>&1 </dev/null &
    servers_job=$!
    { after "$venv_job" "$packages_job" && tests/cluster/prepare.sh clients; } >"$work/images" 2>&1 </dev/null &
    images_job=$!
fi
set +m
check "format" cargo fmt --all --check
check "repository rules" tests/repository/run.sh
# Clippy compiles our own code from here on: it is the compiler with more lints. `cargo clippy` would check some 400 dependencies
# first and leave nothing of that for the build, which costs four minutes.
RUSTC_WORKSPACE_WRAPPER=$(rustup which clippy-driver)
export RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS=-Dwarnings
# Everything at once: cargo unites the features of what it is asked for, so that parts asked for one by one would
# compile tokio, and all that needs it, once for each.
check "build with clippy" cargo build --workspace --all-targets --locked
check "Debian packages" packages_are_there
check "python environment" venv_is_made
check "clients" clients_are_built
check "Prometheus" tests/chart/run.sh --prometheus
export PATH="$PWD/$venv/bin:$PATH"
# They begin by themselves as soon as Kubernetes and the image are there. The cluster mostly waits: for rollouts, pods, time. What is
# compiled and tested beside it promises nothing in seconds, and gives way.
if ! $without_cluster; then
    check "images" images_are_there
    check "the agent's image" tests/cluster/prepare.sh agent
    check "start of the cluster tests" start_cluster_tests
fi
# Before the compiler of Kubernetes: some of them are of real time.
tests "unit tests" gives_way 5 unit_tests
set -m
gives_way 5 papers >"$work/papers" 2>&1 </dev/null &
papers_job=$!
set +m
# With four of the planted bugs; make nightly has them all. After the compiler of Kubernetes, which the cluster waits for: stories have a
# time of their own.
tests "simulated stories, planted bugs" gives_way 15 simulation
check "shapes of the sandbox" gives_way 5 tests/shapes.sh
check "demo" gives_way 5 tests/demo.sh
check "chart, dependencies" papers_are_right
if ! $without_cluster; then
    check "Kubernetes" servers_are_there
    tests "cluster tests" cluster_tests_end
fi
check "namespaces" namespaces
# How soon a flushed table is back is asked of a node that does nothing else.
readonly timed=(node::flushed:: a_table_that_is_flushed_in_the_middle_of_an_update_is_back_at_once)
skipped=(--skip crowd:: --skip cluster::)
# Whoever is root of a user namespace has no other user to start something as.
readonly of_two_users=(a_guard_that_cannot_come_is_not_waited_for an_agent_that_nobody_is_redirected_to_is_not_ready
    where_the_agent_may_not_count_it_serves_and_nothing_is_alarming a_dead_agents_port_is_led_to_until_it_lapses_and_then_nobody_is_asked
    a_guard_port_below_1024_is_an_agents_alone nobody_but_root_and_the_agents_own_user_is_answered)
not_timed=()
for test in "${timed[@]}"; do not_timed+=(--skip "$test"); done
crowd=(--test-threads 1)
left_out=()
if $without_cluster; then
    # They meet the agent of the image, which is made for the cluster.
    crowd+=(--skip two_thousand_pods)
    left_out+=("the cluster tests" "the crowds of 2,000 pods, which need the cluster's image")
fi
if [[ -n $runner ]]; then
    # Root of a user namespace cannot become nobody, and need not: whoever started us has no privileges.
    readonly as_user=an_agent_that_is_nobody
    tests "end-to-end tests, as a user" end_to_end_tests "$as_user"
    skipped+=(--skip "$as_user")
    for test in "${of_two_users[@]}"; do
        skipped+=(--skip "$test")
        left_out+=("$test, which needs root")
    done
    # Only the machine's root can make a cgroup with a limit.
    crowd+=(--skip in_a_cgroup)
    skipped+=(--skip in_a_cgroup)
    left_out+=("the crowd in a cgroup of 64 MiB and the agents in a cgroup of few threads, which need root")
    export "${runner?}"
fi
# Most of them wait for time to pass: four times as many at once as there are processors. Those on nodes of their own have loads of some
# hundred connections a second.
tests "end-to-end tests" end_to_end_tests -- "${skipped[@]}" --skip node:: --test-threads $((4 * $(nproc)))
tests "end-to-end tests on nodes" end_to_end_tests node:: -- "${skipped[@]}" "${not_timed[@]}" --test-threads $((2 * $(nproc)))
# What these promise is about an agent under load, and not about a machine that runs other tests meanwhile.
tests "crowd tests" end_to_end_tests -- crowd:: "${timed[@]}" "${crowd[@]}"
check "image" tests/image/run.sh

# Every failure has ended the run before this line.
echo "$passed passed, 0 failed"
for test in "${left_out[@]}"; do echo "left out: $test"; done
