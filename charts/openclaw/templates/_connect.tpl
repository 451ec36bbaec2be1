{{/* `connect` as part of a worker's pod: the only container with the pod's token. */}}

{{- define "openclaw.connectContainer" -}}
{{- $tls := include "openclaw.tlsSecret" . -}}
{{- $certificate := .Values.workers.connect.clientCertificateSecret -}}
{{- $gateway := printf "%s://%s:%v" (ternary "ws" "wss" (eq $tls "")) (include "openclaw.gatewayName" .) .Values.gateway.service.port -}}
{{- $args := list "connect" "--gateway" $gateway "--token-file" "/var/run/secrets/openclaw/token" -}}
{{- with dig "k8sTrust" "credentialHeader" "" .Values.sidecar.config -}}
{{- $args = concat $args (list "--credential-header" .) -}}
{{- end -}}
{{- if $tls -}}{{- $args = concat $args (list "--ca-file" "/etc/openclaw-gateway-ca/ca.crt") -}}{{- end -}}
{{- if $certificate -}}
{{- if not $tls -}}
{{- fail "workers.connect.clientCertificateSecret is set without TLS on the worker port. Set tls.existingSecret or tls.certManager.enabled, or leave it out." -}}
{{- end -}}
{{- $args = concat $args (list "--cert-file" "/etc/openclaw-client/tls.crt" "--key-file" "/etc/openclaw-client/tls.key") -}}
{{- end -}}
{{- if .Values.workers.sessionHosting.enabled -}}{{- $args = append $args "--session-hosting" -}}{{- end -}}
name: connect
{{ include "openclaw.sidecarImage" . }}
# A native sidecar: it starts before the worker and stops after it.
restartPolicy: Always
args: {{ $args | toJson }}
env:
  # It does not lend this pod's identity to the host network.
  - { name: HOST_IP, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: status.hostIP } } }
# The kubelet cannot reach a loopback port, so the probe is a command.
startupProbe:
  exec: { command: [auth-sidecar, connect, --check] }
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
resources: {{- toYaml .Values.workers.connect.resources | nindent 2 }}
securityContext: {{- toYaml .Values.sidecar.securityContext | nindent 2 }}
volumeMounts:
  - { name: gateway-token, mountPath: /var/run/secrets/openclaw, readOnly: true }
  {{- if $tls }}
  - { name: gateway-ca, mountPath: /etc/openclaw-gateway-ca, readOnly: true }
  {{- end }}
  {{- if $certificate }}
  - { name: client-certificate, mountPath: /etc/openclaw-client, readOnly: true }
  {{- end }}
{{- end -}}
