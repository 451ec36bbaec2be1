{{/* What decides how many workers there are. */}}

{{/* Not empty where the group scales on the slots of hosted sessions. */}}
{{- define "openclaw.scalesOnSessions" -}}
{{- $autoscaling := .Values.workers.autoscaling -}}
{{- if and (include "openclaw.hasWorkers" .) $autoscaling.enabled (eq $autoscaling.metric "sessions") -}}
{{- if ne (include "openclaw.protocol" .) "openclaw" -}}
{{- fail "workers.autoscaling.metric is sessions, and only the openclaw protocol has sessions. Set it to cpu." -}}
{{- end -}}
{{- if not .Values.workers.sessionHosting.enabled -}}
{{- fail "workers.autoscaling.metric is sessions, and workers.sessionHosting.enabled is false: no worker would have a slot. Set it to true, or the metric to cpu." -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{- define "openclaw.workerAutoscaler" -}}
{{- if .Values.workers.autoscaling.enabled -}}
{{- if not (include "openclaw.scalesOnSessions" .) }}
{{- include "openclaw.workerHpa" . }}
{{- else if eq .Values.workers.autoscaling.sessions.provider "keda" }}
{{- include "openclaw.workerScaledObject" . }}
{{- else }}
{{- include "openclaw.workerHpa" . }}
{{- include "openclaw.adapterRule" . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "openclaw.scaledWorkers" -}}
apiVersion: apps/v1
kind: Deployment
name: {{ include "openclaw.workerName" . }}
{{- end -}}

{{/* Few at a time: a worker that goes may have to finish its turns first. */}}
{{- define "openclaw.scalingBehavior" -}}
{{- $default := dict "scaleDown" (dict "policies" (list (dict "type" "Pods" "value" 1 "periodSeconds" 60))) -}}
{{- with .Values.workers.autoscaling.behavior | default (ternary $default dict (ne (include "openclaw.scalesOnSessions" .) "")) }}
{{- toYaml . }}
{{- end }}
{{- end -}}

{{/*
The slots there should be: those in use and the spare ones. Empty, which leaves the number of workers
alone, while the gateway does not tell, and while no worker is connected to have any.
Called with (list $ "openclaw_k8s_session_slots" "namespace=\"openclaw\"").
*/}}
{{- define "openclaw.wantedSlots" -}}
sum({{ index . 1 }}{ {{- index . 2 }},state="used"}) + {{ (index . 0).Values.workers.autoscaling.sessions.spareSlots }} and sum(openclaw_k8s_connected_workers{ {{- index . 2 -}} }) > 0
{{- end -}}

{{/* Tells how many spare slots it includes, so that releases with other numbers can share an adapter. */}}
{{- define "openclaw.wantedSlotsName" -}}
openclaw_session_slots_wanted_with_{{ .Values.workers.autoscaling.sessions.spareSlots }}_spare
{{- end -}}

{{- define "openclaw.workerHpa" -}}
{{- $autoscaling := .Values.workers.autoscaling }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "openclaw.workerName" . }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "openclaw.labels" (list . "worker") | nindent 4 }}
spec:
  scaleTargetRef: {{- include "openclaw.scaledWorkers" . | nindent 4 }}
  minReplicas: {{ $autoscaling.minReplicas }}
  maxReplicas: {{ $autoscaling.maxReplicas }}
  metrics:
    {{- if include "openclaw.scalesOnSessions" . }}
    - type: External
      external:
        metric: { name: {{ include "openclaw.wantedSlotsName" . }} }
        target:
          type: AverageValue
          averageValue: {{ $autoscaling.sessions.slotsPerWorker | quote }}
    {{- else }}
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $autoscaling.targetCPUUtilizationPercentage }}
    {{- end }}
  {{- with include "openclaw.scalingBehavior" . }}
  behavior: {{- . | nindent 4 }}
  {{- end }}
{{ end -}}

{{- define "openclaw.workerScaledObject" -}}
{{- $autoscaling := .Values.workers.autoscaling }}
{{- include "openclaw.needApi" (list . "keda.sh/v1alpha1" "workers.autoscaling.sessions.provider") }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "openclaw.workerName" . }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "openclaw.labels" (list . "worker") | nindent 4 }}
spec:
  scaleTargetRef: {{- include "openclaw.scaledWorkers" . | nindent 4 }}
  minReplicaCount: {{ $autoscaling.minReplicas }}
  maxReplicaCount: {{ $autoscaling.maxReplicas }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {{- include "openclaw.scalingBehavior" . | nindent 8 }}
  triggers:
    - type: prometheus
      name: session-slots
      metricType: AverageValue
      metadata:
        serverAddress: {{ $autoscaling.sessions.prometheusUrl | quote }}
        query: {{ include "openclaw.wantedSlots" (list . "openclaw_k8s_session_slots" (printf "namespace=%q" .Release.Namespace)) | squote }}
        threshold: {{ $autoscaling.sessions.slotsPerWorker | quote }}
        # No answer says nothing of the load; KEDA would take it for 0.
        ignoreNullValues: "false"
      {{- with $autoscaling.sessions.authenticationRef }}
      authenticationRef: {{- toYaml . | nindent 8 }}
      {{- end }}
{{ end -}}

{{/* The adapter has one configuration, of its own; this is the part it needs for these workers. */}}
{{- define "openclaw.adapterRule" -}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "openclaw.workerName" . }}-prometheus-adapter
  namespace: {{ .Release.Namespace }}
  labels: {{- include "openclaw.labels" (list . "worker") | nindent 4 }}
data:
  rules.yaml: |
    externalRules:
      - seriesQuery: openclaw_k8s_session_slots{state="used"}
        # The series has the namespace of the workers, which is that of the HorizontalPodAutoscaler.
        resources: { overrides: { namespace: { resource: namespace } } }
        name: { as: {{ include "openclaw.wantedSlotsName" . }} }
        metricsQuery: {{ include "openclaw.wantedSlots" (list . "<<.Series>>" "<<.LabelMatchers>>") | squote }}
{{ end -}}
