#!/bin/sh
# Puts together what the image holds, from the Debian that it runs on: rootfs.sh AGENT LICENSE DIRECTORY
#
# The agent, nft, the bundle of certificates, and every library that one of the programs is linked with. The same input
# gives the same files, with the same times.
set -eu

agent=$1
license=$2
root=$3
nft=/usr/sbin/nft
certificates=/etc/ssl/certs/ca-certificates.crt

for file in "$agent" "$license" "$nft" "$certificates"; do
    [ -r "$file" ] || { echo "rootfs.sh: $file is not there (Debian: nftables, ca-certificates)" >&2; exit 1; }
done
rm -rf "$root"
mkdir -p "$root"

# Copies a file, or what a link leads to, to the same place.
take() {
    mkdir -p "$root$(dirname "$1")"
    cp -L "$1" "$root$1"
}

install -m 755 "$agent" "$root/pod-identity-agent"
# On the path that container runtimes set where an image sets none: kubectl exec POD -- pod-identity-agent status
mkdir -p "$root/usr/bin"
ln -s /pod-identity-agent "$root/usr/bin/pod-identity-agent"
install -m 644 "$license" "$root/LICENSE"
take "$nft"
take "$certificates"
# "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the loader: "/lib64/ld-linux-x86-64.so.2 (0x…)".
for program in "$agent" "$nft"; do
    # A library that is not found is "=> not found", which is no path: the loader would tell only when it is too late.
    if ldd "$program" | grep 'not found' >&2; then exit 1; fi
    ldd "$program" | grep -o '/[^ ]*' | sort -u | while read -r library; do take "$library"; done
done
find "$root" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
