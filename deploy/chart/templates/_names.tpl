{{/* Names of objects. */}}

{{/* A name that Kubernetes takes as a label's value: `suffix` is kept whole, `name` is cut to fit before it. */}}
{{- define "agent.cut" -}}
{{- if .suffix -}}
{{- printf "%s-%s" (.name | trunc (int (sub 62 (len .suffix))) | trimSuffix "-") .suffix -}}
{{- else -}}
{{- .name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The name of everything, as `helm create` makes it; `suffix` tells DaemonSets apart. */}}
{{- define "agent.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- include "agent.cut" (dict "name" (default $name .Values.fullnameOverride) "suffix" .suffix) -}}
{{- end }}

{{/* The name of an object beside the main one: a list of the chart's context and what tells it apart. */}}
{{- define "agent.partName" -}}
{{- include "agent.cut" (dict "name" (include "agent.name" (first .)) "suffix" (last .)) -}}
{{- end }}

{{- define "agent.serviceAccount" -}}
{{- $account := .Values.serviceAccount -}}
{{- $own := include "agent.name" (dict "Values" .Values "Chart" .Chart "Release" .Release) -}}
{{- default (ternary $own "" $account.create) $account.name -}}
{{- end }}

{{/* One of the DaemonSets, for an example; a word in its place where there is none. */}}
{{- define "agent.anyDaemonSet" -}}
{{- $names := list -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- if $nodes.create }}{{ $names = append $names (include "agent.name" (dict "Values" $.Values "Chart" $.Chart "Release" $.Release "suffix" $nodes.nameSuffix)) }}{{ end -}}
{{- end -}}
{{- with first $names }}{{ printf "daemonset/%s" . }}{{ else }}POD{{ end -}}
{{- end }}

{{/* The command that waits for each DaemonSet. */}}
{{- define "agent.rollouts" -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- if $nodes.create }}
  kubectl -n {{ $.Release.Namespace }} rollout status daemonset/{{ include "agent.name" (dict "Values" $.Values "Chart" $.Chart "Release" $.Release "suffix" $nodes.nameSuffix) }}
{{- end -}}
{{- end -}}
{{- end }}
