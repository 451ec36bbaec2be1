{{/* Values that cannot be meant together. Each message says where, what is wrong, and how to fix it. */}}

{{/* Called with (list $isWrong "message"). */}}
{{- define "openclaw.refuse" -}}
{{- if index . 0 -}}{{- fail (index . 1) -}}{{- end -}}
{{- end -}}

{{- define "openclaw.contradictions" -}}
{{- $config := include "openclaw.sidecarConfig" . | fromYaml -}}
{{- if .Values.gateway.enabled -}}
{{- include "openclaw.gatewayContradictions" (list . $config) -}}
{{- else -}}
{{- include "openclaw.refuse" (list (not .Values.existingGateway.name) "existingGateway.name is missing: with gateway.enabled=false it names the workload that gets the sidecar. Set it to the name of your StatefulSet or Deployment.") -}}
{{- end -}}
{{- include "openclaw.portContradictions" (list . $config) -}}
{{- include "openclaw.drainContradictions" (list . $config) -}}
{{- include "openclaw.accountContradictions" . -}}
{{- include "openclaw.tlsContradictions" . -}}
{{- include "openclaw.groupContradictions" . -}}
{{- include "openclaw.forEachGroup" (list . "openclaw.workerContradictions") -}}
{{- with .Values.monitoring -}}
{{- include "openclaw.refuse" (list (and .podMonitor.enabled .serviceMonitor.enabled) "monitoring.podMonitor.enabled and monitoring.serviceMonitor.enabled are both true: each sidecar would be scraped and counted twice. Keep one of them.") -}}
{{- end -}}
{{- range .Values.sidecar.env -}}
{{- include "openclaw.refuse" (list (regexMatch "^AUTH_SIDECAR_(LISTEN|GATEWAY|DRAIN|K8S_TRUST)_" (toString .name)) (printf "sidecar.env: %s would change an option that the chart's other objects follow. Set the option in sidecar.config instead." .name)) -}}
{{- end -}}
{{- end -}}

{{/* The chart's own gateway: on loopback, at its port, with the sidecar's auth mode. Called with (list $ $config). */}}
{{- define "openclaw.gatewayContradictions" -}}
{{- $values := (index . 0).Values -}}
{{- $gateway := $values.gateway.config.gateway | default dict -}}
{{- $mode := include "openclaw.gatewayAuthMode" (index . 0) -}}
{{- include "openclaw.refuse" (list $values.existingGateway.name "existingGateway.name is set, but gateway.enabled is true: the chart would install a second gateway. Set gateway.enabled to false, or leave existingGateway.name empty.") -}}
{{- include "openclaw.refuse" (list (ne (dig "bind" "loopback" $gateway) "loopback") (printf "gateway.config.gateway.bind is %v: the pod network could reach the gateway past the sidecar. Leave it out; the chart sets loopback." $gateway.bind)) -}}
{{- include "openclaw.refuse" (list (ne (dig "port" 18789 $gateway | int) 18789) (printf "gateway.config.gateway.port is %v: the sidecar and the probes look for the gateway at 18789. Leave it out. gateway.service.port is the port that workers connect to." $gateway.port)) -}}
{{- include "openclaw.refuse" (list (ne (dig "mode" "local" $gateway) "local") (printf "gateway.config.gateway.mode is %v: the chart runs the gateway itself. Leave it out; the chart sets local." $gateway.mode)) -}}
{{- include "openclaw.refuse" (list (ne (dig "auth" "mode" $mode $gateway) $mode) (printf "gateway.config.gateway.auth.mode is %v, and the sidecar expects %s. Set sidecar.config.gateway.auth.mode; the chart configures both." (dig "auth" "mode" "" $gateway) $mode)) -}}
{{- include "openclaw.refuse" (list (or (dig "auth" "token" "" $gateway) (dig "auth" "password" "" $gateway)) "gateway.config.gateway.auth holds a secret, and it would become part of a ConfigMap. Set gateway.token or gateway.existingSecret instead.") -}}
{{- include "openclaw.refuse" (list (dig "tls" "enabled" false $gateway) "gateway.config.gateway.tls.enabled is true: the sidecar reaches the gateway over plain ws on loopback. Leave it out. tls.existingSecret and tls.certManager are for the worker port.") -}}
{{- include "openclaw.refuse" (list (not (has "127.0.0.1" (dig "trustedProxies" (list "127.0.0.1") $gateway))) "gateway.config.gateway.trustedProxies lacks 127.0.0.1: the gateway would not learn the addresses of the workers. Add 127.0.0.1 and ::1, or leave the list out.") -}}
{{- $url := dig "gateway" "url" "ws://127.0.0.1:18789" $values.sidecar.config -}}
{{- include "openclaw.refuse" (list (not (regexMatch "^ws://(127\\.0\\.0\\.1|localhost|\\[::1\\]):18789/?$" $url)) (printf "sidecar.config.gateway.url is %s, and the chart's gateway listens at ws://127.0.0.1:18789. Leave it out." $url)) -}}
{{- range $values.gateway.env -}}
{{- include "openclaw.refuse" (list (has .name (list "OPENCLAW_GATEWAY_PORT" "OPENCLAW_CONFIG_PATH" "OPENCLAW_STATE_DIR" "OPENCLAW_GATEWAY_TOKEN" "OPENCLAW_GATEWAY_PASSWORD")) (printf "gateway.env: the chart sets %s itself. Leave it out; gateway.config, gateway.persistence and gateway.existingSecret change what it stands for." .name)) -}}
{{- end -}}
{{- end -}}

{{- define "openclaw.portContradictions" -}}
{{- $root := index . 0 -}}
{{- $config := index . 1 -}}
{{- $reasons := dict "workers" "no worker could reach it" "admin" "the kubelet's probes and Prometheus could not reach it" -}}
{{- range $port, $reason := $reasons -}}
{{- $address := dig "listen" $port "" $config -}}
{{- include "openclaw.refuse" (list (regexMatch "^(127\\.|localhost:|\\[::1\\]:|\\[::ffff:127\\.)" $address) (printf "sidecar.config.listen.%s is %s, a loopback address: %s. Use [::] and the port, or leave it out." $port $address $reason)) -}}
{{- end -}}
{{- $workers := include "openclaw.sidecarPort" (list $root "workers" 18443) -}}
{{- $admin := include "openclaw.sidecarPort" (list $root "admin" 9464) -}}
{{- include "openclaw.refuse" (list (eq $workers $admin) (printf "sidecar.config.listen: both ports are %s. Give workers and admin different ports." $admin)) -}}
{{- include "openclaw.refuse" (list (has (include "openclaw.gatewayPort" $root) (list $workers $admin)) (printf "sidecar.config.listen: %s is the gateway's own port in the same pod. Choose another one." (include "openclaw.gatewayPort" $root))) -}}
{{- end -}}

{{/* The gateway outlasts the drain where the chart sets its preStop, and the pod outlasts both. */}}
{{- define "openclaw.drainContradictions" -}}
{{- $values := (index . 0).Values -}}
{{- $gateway := $values.gateway -}}
{{- $window := dig "drain" "window" "20s" (index . 1) -}}
{{- if or $gateway.enabled $values.existingGateway.container -}}
{{- include "openclaw.refuse" (list (ge (include "openclaw.seconds" $window | float64) (float64 $gateway.preStopSleepSeconds)) (printf "sidecar.config.drain.window is %s, and gateway.preStopSleepSeconds is %v: the gateway would end while the sidecar still disconnects workers. Make the sleep at least a second longer than the window." $window $gateway.preStopSleepSeconds)) -}}
{{- include "openclaw.refuse" (list (lt (int $gateway.terminationGracePeriodSeconds) (add $gateway.preStopSleepSeconds 5 | int)) (printf "gateway.terminationGracePeriodSeconds is %v, and the gateway's preStop alone takes %v s: it would be killed. Make it at least 5 s longer than gateway.preStopSleepSeconds." $gateway.terminationGracePeriodSeconds $gateway.preStopSleepSeconds)) -}}
{{- end -}}
{{- $needs := addf (include "openclaw.seconds" $window | float64) 10.0 -}}
{{- include "openclaw.refuse" (list (lt (float64 $gateway.terminationGracePeriodSeconds) $needs) (printf "gateway.terminationGracePeriodSeconds is %v, and sidecar.config.drain.window is %s: the pod would be killed while the sidecar still disconnects workers. Make it at least 10 s longer than the window." $gateway.terminationGracePeriodSeconds $window)) -}}
{{- end -}}

{{- define "openclaw.accountContradictions" -}}
{{- range $component := list "gateway" "workers" -}}
{{- $account := (get $.Values $component).serviceAccount -}}
{{- include "openclaw.refuse" (list (and (not $account.create) (not $account.name)) (printf "%s.serviceAccount.create is false, and %s.serviceAccount.name is empty. Set the name of the ServiceAccount that exists." $component $component)) -}}
{{- end -}}
{{- end -}}

{{- define "openclaw.tlsContradictions" -}}
{{- $tls := .Values.tls -}}
{{- $secret := include "openclaw.tlsSecret" . -}}
{{- include "openclaw.refuse" (list (and (not $secret) (dig "listen" "tls" nil .Values.sidecar.config)) "sidecar.config.listen.tls is set, but the workers would connect without TLS. Set tls.existingSecret or tls.certManager instead; the chart then configures both sides.") -}}
{{- include "openclaw.refuse" (list (and $tls.verifyClients (not $secret)) "tls.verifyClients is true, and the worker port has no TLS. Set tls.existingSecret or tls.certManager.enabled, or leave it out.") -}}
{{- with $tls.certManager -}}
{{- include "openclaw.refuse" (list (and .enabled (ge (include "openclaw.seconds" .renewBefore | float64) (include "openclaw.seconds" .duration | float64))) (printf "tls.certManager.renewBefore is %s, and the certificate lives only %s: it would be renewed all the time. Make renewBefore shorter than duration." .renewBefore .duration)) -}}
{{- end -}}
{{- end -}}

{{- define "openclaw.groupContradictions" -}}
{{- $names := list -}}
{{- range .Values.workerGroups -}}
{{- include "openclaw.refuse" (list (has .name $names) (printf "workerGroups: two groups have the name %s. Give each its own." .name)) -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $hosts := include "openclaw.forEachGroup" (list . "openclaw.groupHostsSessions") | splitList "true" | len -}}
{{- include "openclaw.refuse" (list (and (gt $hosts 2) (include "openclaw.forEachGroup" (list . "openclaw.sessionGrace") | trim)) "workers.autoscaling.metric is sessions, and more than one group of workers hosts sessions: the sidecar counts their slots together. Let one group host sessions, or scale on cpu.") -}}
{{- end -}}

{{/* What would keep a group's workers out, or leave them without what they are told to do. */}}
{{- define "openclaw.workerContradictions" -}}
{{- $workers := .Values.workers -}}
{{- $at := ternary "workers" (printf "workerGroups, %s" .Values.workerGroup) (empty .Values.workerGroup) -}}
{{- $config := include "openclaw.sidecarConfig" . | fromYaml -}}
{{- $account := include "openclaw.workerServiceAccount" . -}}
{{- $entries := include "openclaw.entriesOfGroup" . | fromYamlArray -}}
{{- include "openclaw.refuse" (list (empty $entries) (printf "sidecar.config.k8sTrust.allowedIdentities replaces the chart's list and leaves out its own workers (%s): all of them would be refused. Add { namespace: %s, serviceAccount: %s } to it, or set enabled to false there." $at .Release.Namespace $account)) -}}
{{- $showsHeader := or $workers.connect.enabled $workers.envFrom (contains "CF_ACCESS_CLIENT_SECRET" (toJson $workers.env)) -}}
{{- range $workers.extraArgs -}}
{{- include "openclaw.refuse" (list (regexMatch "^--(host|port|tls|no-tls|token|password)(=|$)" (toString .)) (printf "%s: extraArgs has %s, which would lead the workers past what the chart sets up for them. Leave it out; gateway.service.port and tls say where they connect to, and how." $at .)) -}}
{{- end -}}
{{- range $workers.env -}}
{{- include "openclaw.refuse" (list (has .name (list "OPENCLAW_CONFIG_PATH" "OPENCLAW_STATE_DIR" "OPENCLAW_GATEWAY_PORT")) (printf "%s: env has %s, which the chart sets itself. Leave it out; the workers' config changes what it stands for." $at .name)) -}}
{{- end -}}
{{- if eq (include "openclaw.protocol" .) "stream" -}}
{{- include "openclaw.refuse" (list (not $showsHeader) (printf "sidecar.config.gateway.protocol is stream, but the chart's own workers (%s) are OpenClaw nodes, which show their token in OpenClaw's own first message: all of them would be refused. Leave the protocol out, or set enabled to false there." $at)) -}}
{{- end -}}
{{- if eq (include "openclaw.protocol" .) "openclaw" -}}
{{- range $workers.env -}}
{{- include "openclaw.refuse" (list (has .name (list "OPENCLAW_GATEWAY_TOKEN" "OPENCLAW_GATEWAY_PASSWORD")) (printf "%s: env has %s, which the node would show in place of its pod's token: all of them would be refused. Leave it out; workers need no secret." $at .name)) -}}
{{- end -}}
{{- $roles := list -}}
{{- $isHost := false -}}
{{- range $entries -}}
{{- $roles = concat $roles (.allowedRoles | default (list "node")) -}}
{{- if .allowSessionHosting -}}{{- $isHost = true -}}{{- end -}}
{{- end -}}
{{- include "openclaw.refuse" (list (not (has "node" $roles)) (printf "sidecar.config.k8sTrust.allowedIdentities: the entry of %s lacks the role node, which the chart's own workers (%s) have: all of them would be refused. Add node to its allowedRoles." $account $at)) -}}
{{- include "openclaw.refuse" (list (and $workers.sessionHosting.enabled (not (and $isHost $config.gateway.sessionHosting))) (printf "%s: sessionHosting.enabled is true, but sidecar.config forbids it. Set allowSessionHosting in the entry of %s in k8sTrust.allowedIdentities, and leave out gateway.sessionHosting." $at $account)) -}}
{{- include "openclaw.refuse" (list (not (or $showsHeader (dig "inBandCredentials" true $config.k8sTrust))) (printf "sidecar.config.k8sTrust.inBandCredentials is false, but a stock node (%s) shows its token in its first message: all of them would be refused. Set connect.enabled to true there, or leave inBandCredentials out." $at)) -}}
{{- end -}}
{{- $lifetime := dig "maxTokenLifetime" "25h" $config.k8sTrust -}}
{{- include "openclaw.refuse" (list (gt (float64 $workers.tokenExpirationSeconds) (include "openclaw.seconds" $lifetime | float64)) (printf "%s: tokenExpirationSeconds is %v, longer than the %s that sidecar.config.k8sTrust.maxTokenLifetime allows: every token would be refused. Shorten the one or raise the other." $at $workers.tokenExpirationSeconds $lifetime)) -}}
{{- include "openclaw.refuse" (list (and $.Values.tls.verifyClients (not (and $workers.connect.enabled $workers.connect.clientCertificateSecret))) (printf "tls.verifyClients is true, and %s show no certificate: all of them would be refused. Set connect.enabled and connect.clientCertificateSecret there, or leave verifyClients out." $at)) -}}
{{- with $workers.autoscaling -}}
{{- include "openclaw.refuse" (list (and .enabled (gt (int .minReplicas) (int .maxReplicas))) (printf "%s: autoscaling.minReplicas is %v, and maxReplicas is %v. Make the minimum at most the maximum." $at .minReplicas .maxReplicas)) -}}
{{- end -}}
{{- end -}}

{{/* The entries of the allow-list that match a group's workers. */}}
{{- define "openclaw.entriesOfGroup" -}}
{{- $root := . -}}
{{- $entries := list -}}
{{- range (include "openclaw.sidecarConfig" . | fromYaml).k8sTrust.allowedIdentities -}}
{{- if and (include "openclaw.matches" (list .namespace $root.Release.Namespace)) (include "openclaw.matches" (list .serviceAccount (include "openclaw.workerServiceAccount" $root))) -}}
{{- $entries = append $entries . -}}
{{- end -}}
{{- end -}}
{{- toYaml $entries -}}
{{- end -}}

{{/* Not empty where a name matches a pattern with `*` and `?`. Called with (list $pattern $name). */}}
{{- define "openclaw.matches" -}}
{{- $pattern := regexQuoteMeta (index . 0) | replace "\\*" ".*" | replace "\\?" "." -}}
{{- if regexMatch (printf "^%s$" $pattern) (index . 1) -}}true{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as 1h30m or 500ms. */}}
{{- define "openclaw.seconds" -}}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9.]+[a-z]+" . -1 -}}
{{- $unit := get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) (regexFind "[a-z]+" .) -}}
{{- $seconds = addf $seconds (mulf (regexFind "[0-9.]+" . | float64) $unit) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* Not empty where `helm test` can pass: its pod is a worker, and has no client certificate. */}}
{{- define "openclaw.hasHandshakeTest" -}}
{{- if and .Values.tests.enabled (not .Values.tls.verifyClients) (include "openclaw.entriesOfGroup" . | fromYamlArray) -}}true{{- end -}}
{{- end -}}
