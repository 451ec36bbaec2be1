#!/usr/bin/env bash
# log-in.sh REGISTRY: logs cosign, crane and helm in there, as $GITHUB_ACTOR with $TOKEN.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
crane=$(node_modules/.bin/node --input-type=module --eval \
  "import { buildGoTool } from './release/tools.ts'; console.log(await buildGoTool('crane'))" | tail -n 1)
"$crane" auth login "$1" --username "$GITHUB_ACTOR" --password-stdin <<<"$TOKEN"
