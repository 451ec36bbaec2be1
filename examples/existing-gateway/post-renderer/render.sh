#!/bin/sh
# Applies auth-sidecar-patch.yaml, which lies next to this script, to the manifests on standard input.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/rendered.yaml"
cp "$here/auth-sidecar-patch.yaml" "$work/"
printf '%s\n' 'resources: [rendered.yaml]' 'patches: [{ path: auth-sidecar-patch.yaml }]' > "$work/kustomization.yaml"
kubectl kustomize "$work"
