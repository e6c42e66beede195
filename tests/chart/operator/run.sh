#!/usr/bin/env bash
# What prometheus-operator makes of the chart's monitors: golden/prometheus.yaml, made by its own generator. The first build takes some
# minutes, so this is part of `make nightly`, and tests/chart/run.sh compares what it takes for the operator's rules with the golden file.
#   tests/chart/operator/run.sh            check
#   tests/chart/operator/run.sh --write    make the golden file anew
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly tools=$PWD/target/chart-tools golden=tests/chart/golden/prometheus.yaml

monitors() {
    local monitor
    # One after the other: both at once are refused.
    for monitor in podMonitor serviceMonitor; do
        "$tools/bin/helm" template pod-identity-agent deploy/chart --namespace kube-system --set clusterName=shop,env.AWS_REGION=eu-west-1 \
            --set "metrics.$monitor.enabled=true,metrics.$monitor.scrapeTimeout=10s"
    done
}

tests/chart/run.sh --prepare
(cd tests/chart/operator && go vet . && go build -o "$tools/operator" .)
made=$(monitors | "$tools/operator")
if [[ ${1:-} == --write ]]; then
    echo "$made" >"$golden"
else
    diff "$golden" - <<<"$made"
    echo "operator: $golden is what its generator makes"
fi
