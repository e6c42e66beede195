#!/usr/bin/env bash
# The AWS SDK for Java v2 as a client, in .cache/java. Made anew when one of these files changes.
set -euo pipefail
cd "$(dirname "$0")"
out=$(realpath --canonicalize-missing ../../../.cache/java)
key=$({ javac -version; cat pom.xml Asks.java; } 2>&1 | sha256sum)
[[ -f $out/made-from && $(<"$out/made-from") == "$key" ]] && exit 0
# Without its key a folder counts as not made, so an interrupted one is made again.
rm -rf "$out"
mkdir -p "$out"
mvn --batch-mode --quiet --file pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$out"
javac -cp "$out/*" -d "$out" Asks.java
echo "$key" >"$out/made-from"
