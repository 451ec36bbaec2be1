#!/usr/bin/env bash
# on-kind.sh IMAGE COMMAND…: runs a command with the KUBECONFIG of a new kind cluster of that node image.
set -euo pipefail
image=$1
shift
kind=$(node_modules/.bin/node --input-type=module --eval \
  "import { buildGoTool } from './release/tools.ts'; console.log(await buildGoTool('kind'))" | tail -n 1)
KUBECONFIG=$(mktemp)
export KUBECONFIG
trap '"$kind" delete cluster --name release; rm -f "$KUBECONFIG"' EXIT
"$kind" create cluster --name release --image "$image" --wait 3m
"$@"
