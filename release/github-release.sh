#!/usr/bin/env bash
# github-release.sh TAG: publishes the tag on GitHub, with its section of the changelog and what `npm run release` made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tag=$1
version=${tag#v}
notes=$(mktemp)
trap 'rm -f "$notes"' EXIT
node_modules/.bin/node release/changelog.ts "$version" >"$notes"
options=(--verify-tag --title "$tag" --notes-file "$notes")
# Else GitHub shows it as the latest release.
if [[ $version == *-* ]]; then options+=(--prerelease); fi
gh release create "$tag" "${options[@]}" \
  ".cache/release/openclaw-$version.tgz" .cache/release/sbom.cdx.json .cache/release/provenance.json
