#!/usr/bin/env bash
# Does what the README promises: `make demo` starts, the printed curl command works, Ctrl-C ends it without remains.
set -euo pipefail
cd "$(dirname "$0")/.."

# A cold machine builds nothing here, it only starts two processes and makes a few keys.
readonly start_seconds=60
readonly stop_seconds=30

work=$(mktemp -d)
demo=
cleanup() {
    if [[ -n $demo ]]; then
        # The whole session of the demo: itself and whatever it has started.
        pgrep --session "$demo" | xargs --no-run-if-empty kill -KILL 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    echo "demo: $1" >&2
    echo "--- what it printed:" >&2
    cat "$work/output" >&2
    exit 1
}

# The command line that `make demo` ends with, after it has built the binaries.
read -r -a command < <(make --no-print-directory --dry-run demo | tail -n 1)

# The first curl command in the output, with its continuation lines.
printed_curl() {
    awk '!found && /^[[:space:]]*(\$ )?curl / { found = 1; sub(/^[[:space:]]*(\$ )?/, "") }
         found { print; if (!/\\$/) exit }' "$work/output"
}

# Waits until a condition holds; the second argument on is the condition.
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

has_printed_curl() { [[ -n $(printed_curl) ]]; }
has_ended() { ! kill -0 "$demo" 2>/dev/null; }
is_up() { has_printed_curl || has_ended; }

: >"$work/output"
# Its own session, so that nothing of it can be missed; its own state folder, so that a demo that runs is left alone.
# Job control would be off here and SIGINT ignored by what we start, hence the explicit default.
XDG_RUNTIME_DIR=$work setsid env --default-signal=INT "${command[@]}" </dev/null >"$work/output" 2>&1 &
demo=$!

await "$start_seconds" is_up || fail "printed no curl command within $start_seconds s"
has_ended && fail "ended by itself"

answer=$(bash -c "$(printed_curl)") || fail "the printed curl command failed"
python3 - "$answer" <<'PYTHON' || fail "the printed curl command did not return credentials"
import json
import sys

answer = json.loads(sys.argv[1])
missing = [name for name in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration") if not answer.get(name)]
sys.exit(f"missing: {missing}" if missing else 0)
PYTHON

kill -INT "$demo"
await "$stop_seconds" has_ended || fail "did not end within $stop_seconds s of Ctrl-C"
status=0
wait "$demo" || status=$?
[[ $status -eq 0 ]] || fail "ended with status $status after Ctrl-C"
left=$(pgrep --session "$demo" || true)
[[ -z $left ]] || fail "left processes behind: $left"
demo=
echo "demo: started, answered curl, ended with status 0 and left nothing behind"
