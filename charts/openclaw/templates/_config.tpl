{{/* The configuration documents of the sidecar, the gateway and the workers. */}}

{{/* The sidecar's configuration: the chart's values, overridden by the user's. */}}
{{- define "openclaw.sidecarConfig" -}}
{{- $root := .Root | default . -}}
{{- $known := dict "k8sTrust" (dict "audiences" (list "openclaw-gateway")) -}}
{{- /* When a gateway restarts, all its workers come back at once: each keeps its place. */ -}}
{{- $_ := set $known "review" (dict "queue" 16384) -}}
{{- $identities := include "openclaw.forEachGroup" (list $root "openclaw.workerIdentity") | default (include "openclaw.workerIdentity" $root) -}}
{{- $_ := set $known.k8sTrust "allowedIdentities" (fromYamlArray $identities) -}}
{{- if include "openclaw.hostsSessions" $root -}}
{{- if ne (include "openclaw.protocol" .) "openclaw" -}}
{{- fail "workers.sessionHosting.enabled: only OpenClaw nodes host sessions. Set it to false, or sidecar.config.gateway.protocol to openclaw." -}}
{{- end -}}
{{- $_ := set $known "gateway" (dict "sessionHosting" true) -}}
{{- end -}}
{{- with include "openclaw.forEachGroup" (list $root "openclaw.sessionGrace") | trim -}}
{{- $_ := set $known.k8sTrust "terminationGrace" . -}}
{{- end -}}
{{- if include "openclaw.tlsSecret" . -}}
{{- $tls := dict "certFile" "/etc/auth-sidecar-tls/tls.crt" "keyFile" "/etc/auth-sidecar-tls/tls.key" -}}
{{- if include "openclaw.hasAnyWorkers" $root -}}{{- $_ := set $tls "serverNames" (list (include "openclaw.gatewayName" .)) -}}{{- end -}}
{{- if .Values.tls.verifyClients -}}{{- $_ := set $tls "clientCaFile" "/etc/auth-sidecar-tls/ca.crt" -}}{{- end -}}
{{- $_ := set $known "listen" (dict "tls" $tls) -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite $known (deepCopy .Values.sidecar.config)) -}}
{{- end -}}

{{/* The entry of a group's workers in the allow-list. */}}
{{- define "openclaw.workerIdentity" -}}
{{- $identity := dict "namespace" .Release.Namespace "serviceAccount" (include "openclaw.workerServiceAccount" .) "allowedRoles" (list "node") -}}
{{- if .Values.workers.sessionHosting.enabled -}}{{- $_ := set $identity "allowSessionHosting" true -}}{{- end -}}
{{- toYaml (list $identity) -}}
{{- end -}}

{{/* How long the streams of the group that scales on sessions may finish. */}}
{{- define "openclaw.sessionGrace" -}}
{{- if include "openclaw.scalesOnSessions" . -}}
{{- min 3600 (int .Values.workers.terminationGracePeriodSeconds) }}s
{{- end -}}
{{- end -}}

{{/* Changes with the options the sidecar reads only at its start. It reloads the rest of k8sTrust. */}}
{{- define "openclaw.restartDigest" -}}
{{- $config := include "openclaw.sidecarConfig" . | fromYaml -}}
{{- list (omit $config "k8sTrust") (pick $config.k8sTrust "audiences" "ephemeralSessions" "inBandCredentials") | toJson | sha256sum -}}
{{- end -}}

{{/* Port of one of the sidecar's addresses. Called with (list $ "workers" 18443). */}}
{{- define "openclaw.sidecarPort" -}}
{{- $config := include "openclaw.sidecarConfig" (index . 0) | fromYaml -}}
{{- $address := dig "listen" (index . 1) "" $config -}}
{{- if $address -}}{{ splitList ":" $address | last }}{{- else -}}{{ index . 2 }}{{- end -}}
{{- end -}}

{{- define "openclaw.audience" -}}
{{- (include "openclaw.sidecarConfig" . | fromYaml).k8sTrust.audiences | first -}}
{{- end -}}

{{- define "openclaw.protocol" -}}
{{- dig "gateway" "protocol" "openclaw" .Values.sidecar.config -}}
{{- end -}}

{{/* The gateway's auth mode, on which the gateway and the sidecar must agree. */}}
{{- define "openclaw.gatewayAuthMode" -}}
{{- dig "gateway" "auth" "mode" "token" .Values.sidecar.config -}}
{{- end -}}

{{/* openclaw.json of the gateway. Its secret comes from the environment. */}}
{{- define "openclaw.gatewayConfig" -}}
{{- $mode := include "openclaw.gatewayAuthMode" . -}}
{{- $auth := dict "mode" $mode -}}
{{- if eq $mode "trusted-proxy" -}}
{{- $users := list -}}
{{- range (include "openclaw.sidecarConfig" . | fromYaml).k8sTrust.allowedIdentities -}}
{{- if regexMatch "[*?]" (print .namespace .serviceAccount) -}}
{{- fail "sidecar.config.k8sTrust.allowedIdentities: a gateway in trusted-proxy mode needs a list of user names. Write each namespace and ServiceAccount without globs, or use gateway.auth.mode token." -}}
{{- end -}}
{{- $users = append $users (printf "system:serviceaccount:%s:%s" .namespace .serviceAccount) -}}
{{- end -}}
{{- $_ := set $auth "trustedProxy" (dict "userHeader" "x-forwarded-user" "requiredHeaders" (list "x-forwarded-proto") "allowLoopback" true "allowUsers" $users) -}}
{{- end -}}
{{- $known := dict
  "gateway" (dict
    "mode" "local"
    "bind" "loopback"
    "port" 18789
    "auth" $auth
    "trustedProxies" (list "127.0.0.1" "::1"))
  "discovery" (dict "mdns" (dict "mode" "off"))
  "update" (dict "checkOnStart" false) -}}
{{- if not .Values.gateway.isLegacy -}}
{{- $_ := set $known.gateway "nodes" (dict "pairing" (dict "sshVerify" false)) -}}
{{- end -}}
{{- toPrettyJson (mustMergeOverwrite $known (deepCopy .Values.gateway.config)) -}}
{{- end -}}

{{/* openclaw.json of the workers: the node reads the token from its file at each start, or needs none. */}}
{{- define "openclaw.workerConfig" -}}
{{- $known := dict "gateway" (dict "mode" "local") -}}
{{- if not .Values.workers.connect.enabled -}}
{{- $known = dict
  "gateway" (dict
    "mode" "local"
    "auth" (dict "mode" "token" "token" (dict "source" "exec" "provider" "sa" "id" "token")))
  "secrets" (dict "providers" (dict "sa" (dict
    "source" "exec"
    "command" "/opt/openclaw/cat"
    "args" (list "/var/run/secrets/openclaw/token")
    "jsonOnly" false))) -}}
{{- end -}}
{{- if include "openclaw.scalesOnSessions" . -}}
{{- $_ := set $known "nodeHost" (dict "workerRuns" (dict "capacity" (int .Values.workers.autoscaling.sessions.slotsPerWorker))) -}}
{{- end -}}
{{- toPrettyJson (mustMergeOverwrite $known (deepCopy .Values.workers.config)) -}}
{{- end -}}

{{/* Name of the Secret with the worker port's certificate; empty without TLS. */}}
{{- define "openclaw.tlsSecret" -}}
{{- if and .Values.tls.existingSecret .Values.tls.certManager.enabled -}}
{{- fail "tls.existingSecret and tls.certManager.enabled are both set. Keep one of them." -}}
{{- end -}}
{{- if .Values.tls.certManager.enabled -}}{{ include "openclaw.gatewayName" . }}-tls
{{- else -}}{{ .Values.tls.existingSecret }}{{- end -}}
{{- end -}}

{{/* Name of the Secret with the gateway's token. */}}
{{- define "openclaw.tokenSecret" -}}
{{- if and (not .Values.gateway.enabled) (not .Values.gateway.existingSecret) (eq (include "openclaw.protocol" .) "openclaw") -}}
{{- fail "gateway.existingSecret is missing: with gateway.enabled=false the sidecar needs the existing gateway's token. Set it to the name of its Secret, and gateway.secretKey to its key." -}}
{{- end -}}
{{- default (printf "%s-token" (include "openclaw.gatewayName" .)) .Values.gateway.existingSecret -}}
{{- end -}}

{{- define "openclaw.tokenKey" -}}
{{- if .Values.gateway.existingSecret -}}{{ .Values.gateway.secretKey }}{{- else -}}token{{- end -}}
{{- end -}}

{{/* Name of the Secret with the device seed: separate from the token, which can be deleted to rotate it. */}}
{{- define "openclaw.seedSecret" -}}
{{- default (printf "%s-device-seed" (include "openclaw.sidecarName" .)) .Values.sidecar.deviceSeedSecret.name -}}
{{- end -}}

{{- define "openclaw.seedKey" -}}
{{- if .Values.sidecar.deviceSeedSecret.name -}}{{ .Values.sidecar.deviceSeedSecret.key }}{{- else -}}device-seed{{- end -}}
{{- end -}}

{{/* Fails for kinds the cluster does not know. Called with (list $ "monitoring.coreos.com/v1" "monitoring.podMonitor.enabled"). */}}
{{- define "openclaw.needApi" -}}
{{- $root := index . 0 -}}
{{- if not (or $root.Values.monitoring.assumeCrds ($root.Capabilities.APIVersions.Has (index . 1))) -}}
{{- fail (printf "%s: the cluster does not know %s. Install the operator that provides it, choose another value, or set monitoring.assumeCrds=true to render without a cluster." (index . 2) (index . 1)) -}}
{{- end -}}
{{- end -}}

{{/* A token of this pod, only for the sidecar's audience: the API server would not accept it. */}}
{{- define "openclaw.workerTokenVolume" -}}
- name: gateway-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ include "openclaw.audience" . }}
          expirationSeconds: {{ .Values.workers.tokenExpirationSeconds }}
{{- end -}}
