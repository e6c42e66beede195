{{/* Parts of the agent's pod that are put together from several values. */}}

{{/* Environment, from the more special to the more general: a name stands there once, because Kubernetes warns of a second and
takes the last. `nodes` is the kind of nodes. */}}
{{- define "agent.env" -}}
{{- $env := merge (dict) (default (dict) .nodes.env) .Values.env -}}
{{- if include "agent.isIso" . }}{{ $env = merge $env (dict "AWS_CA_BUNDLE" "/etc/pki/tls/certs/ca-bundle.crt") }}{{ end -}}
{{- if not (hasKey $env "NODE_NAME") }}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
{{- range $name, $value := $env }}
{{- if kindIs "map" $value }}
- name: {{ quote $name }}
  {{- toYaml $value | nindent 2 }}
{{- /* An empty region is one that comes from envFrom, which it would hide, or from the instance. */}}
{{- else if and (not (kindIs "invalid" $value)) (not (and (eq $name "AWS_REGION") (eq $value ""))) }}
- name: {{ quote $name }}
  value: {{ include "agent.scalar" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the region is an isolated one, where the node has certificates of its own. One that comes from elsewhere is not known here. */}}
{{- define "agent.isIso" -}}
{{- if contains "-iso" (toString .Values.env.AWS_REGION) -}}true{{- end -}}
{{- end }}

{{/* What the container may do: what its features need (docs/privileges.md has the reason of each), and a user's words last. */}}
{{- define "agent.securityContext" -}}
{{- $values := .Values -}}
{{- $added := list "NET_BIND_SERVICE" -}}
{{- /* Counting alone is no reason to give it a capability: by default it does what it can with those of others. */}}
{{- $blocks := eq "on" (include "agent.blockImds" .) -}}
{{- if or $values.manageLink $values.guardAddress $blocks $values.probeNamespace }}{{ $added = append $added "NET_ADMIN" }}{{ end -}}
{{- if $values.probeNamespace }}{{ $added = append $added "SYS_ADMIN" }}{{ end -}}
{{- $context := dict
    "runAsUser" 0
    "readOnlyRootFilesystem" true
    "capabilities" (dict "drop" (list "ALL") "add" $added) -}}
{{- /* Kubernetes refuses it beside SYS_ADMIN. */}}
{{- if not $values.probeNamespace }}{{ $_ := set $context "allowPrivilegeEscalation" false }}{{ end -}}
{{- range list $values.securityContext .nodes.additionalSecurityContext -}}
{{- $context = mergeOverwrite $context (deepCopy (default (dict) .)) -}}
{{- end -}}
{{- toYaml $context -}}
{{- end }}

{{- define "agent.podSecurityContext" -}}
{{- $default := dict "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- mergeOverwrite $default (deepCopy (default (dict) .Values.podSecurityContext)) | toYaml -}}
{{- end }}

{{/* What an update does on each node: the strategy that was given, or that of the preset. Beside the old agent a new one is asked whether it
is ready by its own socket: whatever asks by a port asks the old one, which would then be ended for one that cannot work. */}}
{{- define "agent.updateStrategy" -}}
{{- $asksItself := eq (toString .Values.agent.readinessEndpoint) "/readyz" -}}
{{- $mayShare := and .Values.guardAddress $asksItself (not (include "agent.declaresPort" .)) -}}
{{- $preset := default "auto" .Values.updatePreset -}}
{{- if .Values.updateStrategy -}}
{{- /* OnDelete is often given beside a null that takes the other one away. */ -}}
{{- $given := .Values.updateStrategy -}}
{{- toYaml (ternary $given (omit $given "rollingUpdate") (kindIs "map" $given.rollingUpdate)) -}}
{{- else if or (eq $preset "surge") (and (eq $preset "auto") $mayShare) -}}
type: RollingUpdate
rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
{{- else -}}
type: RollingUpdate
rollingUpdate: {maxUnavailable: 10%}
{{- end -}}
{{- end -}}

{{/* How many more pods than one an update starts on a node, as text; empty: none. */}}
{{- define "agent.surge" -}}
{{- $strategy := include "agent.updateStrategy" . | fromYaml -}}
{{- $surge := toString (default 0 (dig "rollingUpdate" "maxSurge" 0 $strategy)) -}}
{{- if not (has $surge (list "0" "0%")) }}{{ $surge }}{{ end -}}
{{- end }}

{{/* Over a socket of this pod: while two agents are on a node, a port of the host is that of the one or of the other. Over HTTP where another path
was asked for. Ready is who answers twice, 5 s apart: minReadySeconds would say the same, but with a surge Kubernetes may forget an update over it. */}}
{{- define "agent.probes" -}}
{{- with .Values.agent.livenessEndpoint -}}
livenessProbe:
  {{- if eq . "/healthz" }}
  exec: {command: [/pod-identity-agent, probe, live]}
  timeoutSeconds: 5
  periodSeconds: 30
  failureThreshold: 4
  {{- else }}
  httpGet: {host: localhost, path: {{ quote . }}, port: {{ $.Values.agent.probePort }}}
  timeoutSeconds: 10
  failureThreshold: 6
  {{- end }}
{{ end -}}
{{- with .Values.agent.readinessEndpoint -}}
readinessProbe:
  {{- if eq . "/readyz" }}
  exec: {command: [/pod-identity-agent, probe, ready]}
  timeoutSeconds: 5
  periodSeconds: 5
  successThreshold: 2
  failureThreshold: 4
  {{- else }}
  httpGet: {host: localhost, path: {{ quote . }}, port: {{ $.Values.agent.probePort }}}
  timeoutSeconds: 10
  periodSeconds: 5
  successThreshold: 2
  {{- end }}
{{- end }}
{{- end -}}
