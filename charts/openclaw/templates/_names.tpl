{{/* Names and labels of objects. */}}

{{- define "openclaw.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for suffixes such as `-gateway-token` and the hashes of pods. */}}
{{- define "openclaw.fullname" -}}
{{- $name := include "openclaw.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "openclaw.gatewayName" -}}{{ include "openclaw.fullname" . }}-gateway{{- end -}}
{{- define "openclaw.workerName" -}}
{{ include "openclaw.fullname" . }}-worker{{ with .Values.workerGroup }}-{{ . }}{{ end }}
{{- end -}}
{{- define "openclaw.sidecarName" -}}{{ include "openclaw.fullname" . }}-auth-sidecar{{- end -}}

{{/* Cluster-wide objects are prefixed with the namespace; its name cannot contain a colon. */}}
{{- define "openclaw.clusterName" -}}{{ .Release.Namespace }}:{{ include "openclaw.sidecarName" . }}{{- end -}}

{{- define "openclaw.gatewayServiceAccount" -}}
{{- $existing := and (not .Values.gateway.enabled) .Values.existingGateway.serviceAccountName -}}
{{- $existing | default .Values.gateway.serviceAccount.name | default (include "openclaw.gatewayName" .) -}}
{{- end -}}

{{- define "openclaw.workerServiceAccount" -}}
{{- .Values.workers.serviceAccount.name | default (include "openclaw.workerName" .) -}}
{{- end -}}

{{/* Labels of an object of a component. Called with (list $ "gateway"). */}}
{{- define "openclaw.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "openclaw.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: openclaw
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a component's pods: without a version, which would restart them without need. Called with (list $ "gateway" extra). */}}
{{- define "openclaw.podLabels" -}}
{{- include "openclaw.selectorLabels" . }}
app.kubernetes.io/part-of: openclaw
{{- with mergeOverwrite dict (index . 0).Values.commonLabels (index . 2) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels that never change during the life of a release. */}}
{{- define "openclaw.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "openclaw.name" $root }}{{ with $root.Values.workerGroup }}-{{ . }}{{ end }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels that the patch adds to the pods of an existing gateway, so that they can be selected. */}}
{{- define "openclaw.injectedLabel" -}}
auth-sidecar.openclaw/release: {{ .Release.Name }}
{{- end -}}

{{/* The labels of the pods that hold the sidecar. */}}
{{- define "openclaw.gatewayPodLabels" -}}
{{- if .Values.gateway.enabled -}}
{{ include "openclaw.selectorLabels" (list . "gateway") }}
{{- else if .Values.existingGateway.podLabels -}}
{{ toYaml .Values.existingGateway.podLabels }}
{{- else -}}
{{ include "openclaw.injectedLabel" . }}
{{- end -}}
{{- end -}}

{{/* Pods with a token of a worker's ServiceAccount: the workers of all groups, and the handshake test. */}}
{{- define "openclaw.workerPeerLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end -}}
