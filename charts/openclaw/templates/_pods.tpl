{{/* What the pods of the gateway and of the workers have in common. */}}

{{/* An image with its digest, if it has one. Called with (list $image $tag), where the tag is for an image without one. */}}
{{- define "openclaw.image" -}}
{{- $image := index . 0 -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "openclaw.productImage" -}}
image: {{ include "openclaw.image" (list .Values.image "") | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- define "openclaw.sidecarImage" -}}
image: {{ include "openclaw.image" (list .Values.sidecar.image .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.sidecar.image.pullPolicy }}
{{- end -}}

{{/* The fields of a pod's spec that the chart passes on as they are. Called with the values of the component. */}}
{{- define "openclaw.podFields" -}}
{{- range $field := list "priorityClassName" "runtimeClassName" "schedulerName" "hostAliases" "dnsConfig" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $ $field }}
{{ toYaml (dict $field .) }}
{{- end }}
{{- end }}
{{- end -}}
