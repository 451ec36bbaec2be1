#!/usr/bin/env bash
# The two commands of the README, in a clone of this commit without anything else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone --quiet . "$clone"
cd "$clone"
node --version
npm ci
npm run demo -- --once
