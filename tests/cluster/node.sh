#!/usr/bin/env bash
# A node: PID 1 of PID, mount and network namespaces of its own, and what systemd would be on a real one.
#   node.sh NAME FOLDER LOG SERVERS IMAGES
# When this process is killed the kernel ends all others and takes mounts and network away: that is the node's power switch.
# What is on disk stays in FOLDER, for the next start.
set -euo pipefail
readonly name=$1 folder=$2 log=$3 servers=$4 images=$5

# The network is wired from outside meanwhile.
echo made
read -r _

exec >>"$log" 2>&1 </dev/null
echo "== start"
echo 1 >/proc/sys/net/ipv4/ip_forward

# The machine's own disk and state are covered: this node has its own.
mkdir -p "$folder"/{lib,logs}
mount --make-rprivate /
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/logs" /var/log
# As after a boot: nothing of the last one is running.
mount -t tmpfs tmpfs /run

containerd --config "$folder/containerd.toml" &
containerd=$!
until ctr version >/dev/null 2>&1; do sleep 0.05; done
for image in "$images"/*.tar; do
    [[ -e /var/lib/containerd/${image##*/} ]] && continue
    ctr --namespace k8s.io images import "$image"
    touch "/var/lib/containerd/${image##*/}"
done
start_kubelet() {
    "$servers/kubelet" --config "$folder/kubelet.json" --kubeconfig "$folder/kubeconfig" --hostname-override "$name" \
        --node-ip "$(ip -4 -o addr show eth0 | sed 's/.* inet \([0-9.]*\).*/\1/')" --root-dir /var/lib/kubelet \
        --cert-dir /var/lib/kubelet/pki &
    kubelet=$!
}
start_kubelet
echo "containerd $containerd, kubelet $kubelet"
# bash reaps what is orphaned, the shims among it. A kubelet that ends is started again; without containerd there is no node.
while wait -n "$containerd" "$kubelet" || true; do
    kill -0 "$containerd" 2>/dev/null || { echo "containerd has ended"; exit 1; }
    kill -0 "$kubelet" 2>/dev/null || { echo "the kubelet has ended; again"; sleep 1; start_kubelet; }
done
