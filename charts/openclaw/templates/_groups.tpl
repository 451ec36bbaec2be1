{{/* Groups of workers: `workers`, and each item of `workerGroups` merged over it. */}}

{{/*
Renders a template once for each group that runs, with the group's values in `.Values.workers`, its name
in `.Values.workerGroup`, and the chart's own context in `.Root`. Called with (list $ "template").
*/}}
{{- define "openclaw.forEachGroup" -}}
{{- $root := (index . 0).Root | default (index . 0) -}}
{{- $template := index . 1 -}}
{{- range $group := prepend $root.Values.workerGroups dict -}}
{{- $base := ternary dict (dict "enabled" true) (empty $group) -}}
{{- $workers := mustMergeOverwrite (deepCopy $root.Values.workers) $base (deepCopy (omit $group "name")) -}}
{{- $values := set (set (omit $root.Values "workers") "workers" $workers) "workerGroup" (get $group "name") -}}
{{- $context := set (set (omit $root "Values") "Values" $values) "Root" $root -}}
{{- if include "openclaw.hasWorkers" $context -}}
{{- include $template $context }}
{{ end -}}
{{- end -}}
{{- end -}}

{{/* Not empty where the group runs: `auto` means with the chart's own gateway. */}}
{{- define "openclaw.hasWorkers" -}}
{{- $enabled := toString .Values.workers.enabled -}}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") .Values.gateway.enabled) -}}true{{- end -}}
{{- end -}}

{{/* Not empty where a group of workers runs. */}}
{{- define "openclaw.hasAnyWorkers" -}}
{{- include "openclaw.forEachGroup" (list . "openclaw.hasWorkers") | trim -}}
{{- end -}}

{{/* Not empty where a group hosts sessions. */}}
{{- define "openclaw.hostsSessions" -}}
{{- include "openclaw.forEachGroup" (list . "openclaw.groupHostsSessions") | trim -}}
{{- end -}}

{{- define "openclaw.groupHostsSessions" -}}
{{- if .Values.workers.sessionHosting.enabled -}}true{{- end -}}
{{- end -}}
