{{/* A group of workers: its Deployment, configuration, autoscaler and disruption budget. */}}

{{- define "openclaw.workerGroup" }}
{{- $name := include "openclaw.workerName" . }}
{{- $tls := include "openclaw.tlsSecret" . }}
{{- $connect := .Values.workers.connect.enabled }}
{{- $dialed := ternary (list "--host" "127.0.0.1" "--port" "18789") (concat (list "--host" (include "openclaw.gatewayName" .) "--port" (toString .Values.gateway.service.port)) (ternary (list "--tls") list (ne $tls ""))) $connect }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "openclaw.labels" (list . "worker") | nindent 4 }}
  {{- with .Values.workers.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if not .Values.workers.autoscaling.enabled }}
  replicas: {{ .Values.workers.replicas }}
  {{- end }}
  {{- with .Values.workers.strategy }}
  strategy: {{- toYaml . | nindent 4 }}
  {{- end }}
  selector:
    matchLabels: {{- include "openclaw.selectorLabels" (list . "worker") | nindent 6 }}
  template:
    metadata:
      labels: {{- include "openclaw.podLabels" (list . "worker" .Values.workers.podLabels) | nindent 8 }}
      annotations:
        checksum/worker-config: {{ include "openclaw.workerConfig" . | sha256sum }}
        {{- with .Values.workers.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "openclaw.workerServiceAccount" . }}
      automountServiceAccountToken: false
      # A Service named openclaw-gateway would become OPENCLAW_GATEWAY_PORT=tcp://…, which OpenClaw reads.
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .Values.workers.terminationGracePeriodSeconds }}
      securityContext: {{- toYaml .Values.workers.podSecurityContext | nindent 8 }}
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with include "openclaw.podFields" .Values.workers | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      initContainers:
        {{- if $connect }}
        - {{- include "openclaw.connectContainer" . | nindent 10 }}
        {{- else }}
        # OpenClaw runs a command for a secret only if its own user owns it; in the image, root owns it.
        - name: token-reader
          {{- include "openclaw.productImage" . | nindent 10 }}
          command: [node, -e, "fs.copyFileSync('/usr/bin/cat', '/opt/openclaw/cat')"]
          resources: {{- toYaml .Values.workers.resources | nindent 12 }}
          securityContext: {{- toYaml .Values.workers.securityContext | nindent 12 }}
          volumeMounts:
            - { name: token-reader, mountPath: /opt/openclaw }
        {{- end }}
        {{- with .Values.workers.extraInitContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      containers:
        - name: worker
          {{- include "openclaw.productImage" . | nindent 10 }}
          command: {{ concat .Values.gateway.command (list "node" "run") $dialed (ternary (list "--session-host") list .Values.workers.sessionHosting.enabled) .Values.workers.extraArgs | toJson }}
          env:
            - { name: HOME, value: /home/node }
            - { name: OPENCLAW_STATE_DIR, value: /home/node/.openclaw }
            - { name: OPENCLAW_CONFIG_PATH, value: /etc/openclaw/openclaw.json }
            - { name: OPENCLAW_NO_AUTO_UPDATE, value: "1" }
            - { name: OPENCLAW_DISABLE_BONJOUR, value: "1" }
            - { name: NO_COLOR, value: "1" }
            {{- if $connect }}
            {{- else if $tls }}
            - { name: NODE_EXTRA_CA_CERTS, value: /etc/openclaw-gateway-ca/ca.crt }
            {{- else }}
            # A Service's short name over unencrypted ws: the token is bound to this pod and its address.
            - { name: OPENCLAW_ALLOW_INSECURE_PRIVATE_WS, value: "1" }
            {{- end }}
            {{- with .Values.workers.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with .Values.workers.envFrom }}
          envFrom: {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- if include "openclaw.scalesOnSessions" . }}
          lifecycle:
            # Which worker goes is not ours to choose, so one that goes finishes its turns.
            preStop:
              exec:
                command: [node, /etc/openclaw/wait-for-turns.mjs, "10"]
          {{- end }}
          resources: {{- toYaml .Values.workers.resources | nindent 12 }}
          securityContext: {{- toYaml .Values.workers.securityContext | nindent 12 }}
          volumeMounts:
            {{- if not $connect }}
            - { name: gateway-token, mountPath: /var/run/secrets/openclaw, readOnly: true }
            {{- end }}
            - { name: worker-config, mountPath: /etc/openclaw, readOnly: true }
            {{- if not $connect }}
            {{- if $tls }}
            - { name: gateway-ca, mountPath: /etc/openclaw-gateway-ca, readOnly: true }
            {{- end }}
            - { name: token-reader, mountPath: /opt/openclaw, readOnly: true }
            {{- end }}
            - { name: state, mountPath: /home/node/.openclaw }
            - { name: cache, mountPath: /home/node/.cache }
            {{- if .Values.workers.sessionHosting.enabled }}
            - { name: hosted, mountPath: /home/node/.openclaw-worker }
            {{- end }}
            - { name: tmp, mountPath: /tmp }
            {{- with .Values.workers.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with .Values.workers.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        {{- include "openclaw.workerTokenVolume" . | nindent 8 }}
        - name: worker-config
          configMap: { name: {{ $name }}-config }
        {{- if $tls }}
        - name: gateway-ca
          secret:
            secretName: {{ $tls }}
            items: [{ key: ca.crt, path: ca.crt }]
        {{- end }}
        {{- if not $connect }}
        - name: token-reader
          emptyDir: {}
        {{- else if .Values.workers.connect.clientCertificateSecret }}
        - name: client-certificate
          secret: { secretName: {{ .Values.workers.connect.clientCertificateSecret }} }
        {{- end }}
        - name: state
          emptyDir: {}
        - name: cache
          emptyDir: {}
        {{- if .Values.workers.sessionHosting.enabled }}
        - name: hosted
          emptyDir: {}
        {{- end }}
        - name: tmp
          emptyDir: {}
        {{- with .Values.workers.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}-config
  namespace: {{ .Release.Namespace }}
  labels: {{- include "openclaw.labels" (list . "worker") | nindent 4 }}
data:
  openclaw.json: |
    {{- include "openclaw.workerConfig" . | nindent 4 }}
  {{- if include "openclaw.scalesOnSessions" . }}
  wait-for-turns.mjs: |
    {{- .Files.Get "files/wait-for-turns.mjs" | nindent 4 }}
  {{- end }}
{{- include "openclaw.workerAutoscaler" . }}
{{- if .Values.workers.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "openclaw.labels" (list . "worker") | nindent 4 }}
spec:
  maxUnavailable: {{ .Values.workers.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels: {{- include "openclaw.selectorLabels" (list . "worker") | nindent 6 }}
{{- end }}
{{- end -}}
