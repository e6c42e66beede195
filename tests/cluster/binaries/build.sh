#!/usr/bin/env bash
# Prints the folder that holds the servers of a Kubernetes cluster, and builds them from pinned Go modules if it has to: once
# per machine and version, about 8 minutes on 2 cores.
#
# Whoever has them names them: TEST_ASSET_KUBELET=/path (and the like) for one, KUBEBUILDER_ASSETS=/folder for those that lie
# there. What is not named is built.
set -euo pipefail
cd "$(dirname "$0")"

readonly servers=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet)
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/pod-identity-agent/cluster

# The file somebody named for a server, in the order of envtest.
named() {
    local variable=TEST_ASSET_${1^^} folder=${KUBEBUILDER_ASSETS:-/usr/local/kubebuilder/bin}
    variable=${variable//-/_}
    if [[ -n ${!variable:-} ]]; then
        echo "${!variable}"
    elif [[ -x $folder/$1 ]]; then
        echo "$folder/$1"
    fi
}

# Without inlining and DWARF Go compiles it in two thirds of the time. The servers of two nodes that mostly wait do not miss either.
readonly compile=(-gcflags "all=-l -dwarf=false")

# Nothing but these files, flags and the compiler decides what is built.
key=$({ go version; echo "${compile[@]}"; cat go.mod go.sum main.go; } | sha256sum | cut -c -16)
readonly key built=$cache/kubernetes-$key

build() {
    local version
    version=$(sed -n 's|^\tk8s.io/kubernetes \(v[0-9.]*\)$|\1|p' go.mod)
    mkdir -p "$built"
    echo "building Kubernetes $version from Go modules into the cache, once; about 8 minutes" >&2
    # Without the -X it would call itself v0.0.0-master, and the kubelet would refuse newer features.
    nice -n 10 go build -trimpath -mod=readonly -buildvcs=false -o "$built/kubernetes.next" "${compile[@]}" \
        -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" . >&2
    # In one step, so that an interrupted build is no build.
    mv "$built/kubernetes.next" "$built/kubernetes"
    # 133 MB each: those of other versions go when nobody has built for a month.
    find "$cache" -maxdepth 1 \( -name 'kubernetes-*' -o -name 'servers-*' \) -mtime +30 -exec rm -r {} +
}

mkdir -p "$cache"
# Two builders at once would do the same work twice, on the same cores.
exec 9>"$cache/lock"
flock 9
folder=$(mktemp -d "$cache/servers.XXXXXX")
for server in "${servers[@]}"; do
    file=$(named "$server")
    if [[ -z $file ]]; then
        [[ -x $built/kubernetes ]] || build
        # It goes by the name it is called.
        file=$built/kubernetes
    fi
    ln -s "$(realpath "$file")" "$folder/$server"
done
# One folder per content of the links, so that a run under way keeps its own.
links=$cache/servers-$(cd "$folder" && for server in "${servers[@]}"; do readlink "$server"; done | sha256sum | cut -c -16)
if [[ -d $links ]]; then rm -r "$folder"; else mv "$folder" "$links"; fi
echo "$links"
