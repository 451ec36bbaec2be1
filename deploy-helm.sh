#!/usr/bin/env bash
# deploy-helm.sh NAME [helm options…]: installs the chart as release NAME, or upgrades it.
#
# A new install gets a new gateway token; an upgrade keeps the one in the cluster. Values from
# earlier runs stay in force. NAMESPACE sets the namespace, openclaw by default. To rotate the token,
# delete the Secret named in the release notes of NAME and run this again.
set -euo pipefail

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

name=${1:-}
case $name in
  -h | --help) usage && exit ;;
  '' | -*) usage >&2 && exit 64 ;;
esac
shift
namespace=${NAMESPACE:-openclaw}
chart=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/charts/openclaw
for program in helm kubectl; do
  command -v "$program" >/dev/null && continue
  echo "deploy-helm.sh needs $program, which is not on the PATH." >&2
  exit 69
done

if helm status "$name" --namespace "$namespace" >/dev/null 2>&1; then
  echo "Release $name exists: the gateway keeps its token."
else
  echo "Release $name is new: the gateway gets a new token, unless the Secret of an earlier install still exists."
fi
exec helm upgrade "$name" "$chart" --install --namespace "$namespace" --create-namespace \
  --reset-then-reuse-values "$@"
