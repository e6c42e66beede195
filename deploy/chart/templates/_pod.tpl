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
{{- /* An empty region is one that comes from envFrom, which it would hide. */}}
{{- else if and (not (kindIs "invalid" $value)) (not (and (eq $name "AWS_REGION") (eq $value ""))) }}
- name: {{ quote $name }}
  value: {{ include "agent.scalar" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the region is an isolated one, where the node has certificates of its own. */}}
{{- define "agent.isIso" -}}
{{- if contains "-iso" (toString .Values.env.AWS_REGION) -}}true{{- end -}}
{{- end }}

{{/* What the container may do: what its features need (docs/privileges.md has the reason of each), and a user's words last. */}}
{{- define "agent.securityContext" -}}
{{- $values := .Values -}}
{{- $added := list "NET_BIND_SERVICE" -}}
{{- if or $values.manageLink $values.guardAddress $values.blockImds $values.probeNamespace }}{{ $added = append $added "NET_ADMIN" }}{{ end -}}
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
