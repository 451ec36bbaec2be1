{{/* The alerts of files/rules.yaml, as the values change them. */}}

{{- define "openclaw.shippedRunbook" -}}
https://github.com/openclaw-k8s/auth-sidecar/blob/main/docs/runbook.md
{{- end -}}

{{- define "openclaw.alertRules" -}}
{{- $changes := .Values.monitoring.prometheusRule.alerts -}}
{{- $text := .Files.Get "files/rules.yaml" | replace (include "openclaw.shippedRunbook" .) .Values.monitoring.runbookUrl -}}
{{- $groups := list -}}
{{- $known := list -}}
{{- range $group := (fromYaml $text).groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- $known = append $known $rule.alert -}}
{{- $change := get $changes $rule.alert | default dict -}}
{{- if dig "enabled" true $change -}}
{{- $rules = append $rules (include "openclaw.alertRule" (list $rule $change) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}{{- $groups = append $groups (set $group "rules" $rules) -}}{{- end -}}
{{- end -}}
{{- range $name := keys $changes | sortAlpha -}}
{{- include "openclaw.refuse" (list (not (has $name $known)) (printf "monitoring.prometheusRule.alerts.%s: there is no such alert. files/rules.yaml of the chart has their names." $name)) -}}
{{- end -}}
{{- toYaml (dict "groups" $groups) -}}
{{- end -}}

{{/* One alert with its changes. Called with (list $rule $change). */}}
{{- define "openclaw.alertRule" -}}
{{- $rule := index . 0 -}}
{{- $change := index . 1 -}}
{{- if hasKey $change "threshold" -}}
{{- include "openclaw.refuse" (list (not (contains "# threshold" $rule.expr)) (printf "monitoring.prometheusRule.alerts.%s.threshold: this alert has no threshold. Leave it out, or set enabled to false." $rule.alert)) -}}
{{- $_ := set $rule "expr" (regexReplaceAll "[0-9.]+ # threshold" $rule.expr (printf "%v # threshold" $change.threshold)) -}}
{{- end -}}
{{- with $change.for -}}{{- $_ := set $rule "for" . -}}{{- end -}}
{{- with $change.severity -}}{{- $_ := set $rule.labels "severity" . -}}{{- end -}}
{{- toYaml $rule -}}
{{- end -}}
