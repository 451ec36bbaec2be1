{{/* The sidecar as part of a pod: in the chart's gateway, and in the patch for an existing gateway. */}}

{{- define "openclaw.sidecarContainer" -}}
{{- $isOpenclaw := eq (include "openclaw.protocol" .) "openclaw" -}}
name: auth-sidecar
{{ include "openclaw.sidecarImage" . }}
# A native sidecar: it starts before the gateway and stops after it.
restartPolicy: Always
args: [serve, --config, /etc/auth-sidecar/config.yaml]
env:
  # On the host network it shows its status to nobody.
  - { name: HOST_IP, valueFrom: { fieldRef: { apiVersion: v1, fieldPath: status.hostIP } } }
  {{- with .Values.sidecar.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.sidecar.envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - { name: workers, containerPort: {{ include "openclaw.sidecarPort" (list . "workers" 18443) }} }
  - { name: admin, containerPort: {{ include "openclaw.sidecarPort" (list . "admin" 9464) }} }
# Not readiness: readiness waits for the gateway, and the gateway waits for this probe.
startupProbe:
  httpGet: { path: /livez, port: admin }
  {{- toYaml .Values.sidecar.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: { path: /livez, port: admin }
  {{- toYaml .Values.sidecar.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  {{- toYaml .Values.sidecar.probes.readiness | nindent 2 }}
lifecycle:
  # SIGTERM comes after the gateway has stopped; this hook runs when the pod is deleted.
  preStop:
    exec:
      command: [auth-sidecar, drain, --config, /etc/auth-sidecar/config.yaml]
resources: {{- toYaml .Values.sidecar.resources | nindent 2 }}
securityContext: {{- toYaml .Values.sidecar.securityContext | nindent 2 }}
volumeMounts:
  - { name: auth-sidecar-config, mountPath: /etc/auth-sidecar, readOnly: true }
  {{- if $isOpenclaw }}
  - { name: auth-sidecar-gateway-token, mountPath: /etc/openclaw-gateway, readOnly: true }
  {{- end }}
  {{- if include "openclaw.tlsSecret" . }}
  - { name: auth-sidecar-tls, mountPath: /etc/auth-sidecar-tls, readOnly: true }
  {{- end }}
  - { name: auth-sidecar-identity, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true }
  {{- with .Values.sidecar.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "openclaw.sidecarVolumes" -}}
{{- $isOpenclaw := eq (include "openclaw.protocol" .) "openclaw" -}}
- name: auth-sidecar-config
  projected:
    sources:
      - configMap: { name: {{ include "openclaw.sidecarName" . }} }
      {{- if $isOpenclaw }}
      - secret:
          name: {{ include "openclaw.seedSecret" . }}
          items: [{ key: {{ include "openclaw.seedKey" . }}, path: device-seed }]
      {{- end }}
{{- if $isOpenclaw }}
- name: auth-sidecar-gateway-token
  secret:
    secretName: {{ include "openclaw.tokenSecret" . }}
    items: [{ key: {{ include "openclaw.tokenKey" . }}, path: token }]
{{- end }}
{{- with include "openclaw.tlsSecret" . }}
- name: auth-sidecar-tls
  secret:
    secretName: {{ . }}
{{- end }}
# The pod does not mount a token automatically, so that the gateway's container has none.
- name: auth-sidecar-identity
  projected:
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3600 }
      - configMap:
          name: kube-root-ca.crt
          items: [{ key: ca.crt, path: ca.crt }]
      - downwardAPI:
          items: [{ path: namespace, fieldRef: { apiVersion: v1, fieldPath: metadata.namespace } }]
{{- with .Values.sidecar.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a gateway's container needs next to the sidecar. */}}
{{- define "openclaw.gatewayHooks" -}}
{{- if eq (include "openclaw.protocol" .) "openclaw" -}}
# The gateway listens on loopback, which the kubelet's network probes cannot reach.
{{- range $probe, $path := dict "startup" "healthz" "liveness" "healthz" "readiness" "readyz" }}
{{ $probe }}Probe:
  exec:
    command:
      - node
      - -e
      - "fetch('http://127.0.0.1:{{ include "openclaw.gatewayPort" $ }}/{{ $path }}').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"
  {{- toYaml (get $.Values.gateway.probes $probe) | nindent 2 }}
{{- end }}
{{ end -}}
lifecycle:
  # Meanwhile the sidecar disconnects the workers.
  preStop:
    sleep: { seconds: {{ .Values.gateway.preStopSleepSeconds }} }
{{- end -}}

{{/* The port on loopback where the sidecar finds the gateway. */}}
{{- define "openclaw.gatewayPort" -}}
{{- (dig "gateway" "url" "ws://127.0.0.1:18789" .Values.sidecar.config | urlParse).host | regexFind ":[0-9]+$" | trimPrefix ":" | default "80" -}}
{{- end -}}
