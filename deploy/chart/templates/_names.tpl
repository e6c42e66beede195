{{/* The name of everything; `suffix` tells DaemonSets apart. */}}
{{- define "agent.name" -}}
{{- $name := default (default .Chart.Name .Values.nameOverride) .Values.fullnameOverride -}}
{{- if .suffix -}}{{ printf "%s-%s" $name .suffix }}{{- else -}}{{ $name }}{{- end -}}
{{- end }}

{{/* What a DaemonSet finds its pods by; never to be changed, because it cannot be in an upgrade. */}}
{{- define "agent.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ include "agent.name" . }}
{{- end }}

{{- define "agent.labels" -}}
{{ include "agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "agent.image" -}}
{{- $image := .Values.image -}}
{{- $repository := $image.repository -}}
{{- with $image.containerRegistry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- default (printf "%s:%s" $repository (toString (default .Chart.AppVersion $image.tag))) $image.override -}}
{{- end }}

{{- define "agent.serviceAccount" -}}
{{- $account := .Values.serviceAccount -}}
{{- default (ternary (include "agent.name" (dict "Values" .Values "Chart" .Chart)) "" $account.create) $account.name -}}
{{- end }}

{{/* As YAML. Earlier charts of Amazon have these values under `agent`. */}}
{{- define "agent.metrics" -}}
{{- mergeOverwrite (deepCopy .Values.metrics) (default (dict) .Values.agent.metrics) | toYaml -}}
{{- end }}

{{/* A command of one's own; those of the Amazon image mean our entrypoint. A list, or a string that reads as one. */}}
{{- define "agent.command" -}}
{{- if . -}}
{{- $command := ternary (toYaml .) (toString .) (kindIs "slice" .) -}}
{{- if not (or (contains "/go-runner" $command) (contains "/eks-pod-identity-agent" $command)) -}}
{{- $command -}}
{{- end -}}
{{- end -}}
{{- end }}
