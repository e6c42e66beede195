#!/usr/bin/env bash
# Makes an image of one layer as a docker-archive, without an engine: archive.sh NAME FOLDER FILE [ENTRYPOINT...]
set -euo pipefail

readonly name=$1 folder=$2 file=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$folder" -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)
entrypoint=$(printf '%s\n' "$@" | sed 's/.*/"&"/' | paste -sd ,)
case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) echo "no name for the architecture $(uname -m)" >&2; exit 1 ;;
esac
cat >"$work/config.json" <<END
{"architecture": "$architecture", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]},
 "config": {"Entrypoint": [$entrypoint], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}}
END
echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$name\"], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
tar -C "$work" -cf "$file.next" manifest.json config.json layer.tar
mv "$file.next" "$file"
