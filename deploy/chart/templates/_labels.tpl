{{/* Labels, and what they select. */}}

{{/* What a DaemonSet finds its pods by: as in Amazon's chart, so that a release of it can be upgraded, and for good, because an
upgrade cannot change it. */}}
{{- define "agent.selector" -}}
app.kubernetes.io/name: {{ include "agent.cut" (dict "name" (default .Chart.Name .Values.nameOverride) "suffix" .suffix) | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* What all pods of a release have in common, and no other pod has. */}}
{{- define "agent.ours" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: "agent"
app.kubernetes.io/part-of: {{ include "agent.cut" (dict "name" (default .Chart.Name .Values.nameOverride)) | quote }}
{{- end }}

{{/* Labels of pods: nothing in them changes with a version, so a chart that only has another version restarts no agent. */}}
{{- define "agent.podLabels" -}}
{{- $fixed := merge (include "agent.selector" . | fromYaml) (include "agent.ours" . | fromYaml) -}}
{{- include "agent.strings" (merge $fixed (default (dict) .Values.podLabels) (default (dict) .Values.commonLabels)) -}}
{{- end }}

{{/* Labels of objects, in one map with those of the object alone: a key that stood there twice would be no YAML. */}}
{{- define "agent.labels" -}}
{{- $labels := merge (include "agent.selector" . | fromYaml) (include "agent.ours" . | fromYaml) (dict
    "app.kubernetes.io/version" .Chart.AppVersion
    "app.kubernetes.io/managed-by" .Release.Service
    "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")) -}}
{{- include "agent.strings" (merge $labels (default (dict) .extraLabels) (default (dict) .Values.commonLabels)) -}}
{{- end }}

{{/* The metadata of an object: its name, and what all objects have. `chart` is the chart's context. Of this object alone: `suffix` of
a DaemonSet, `cluster` where it has no namespace, `labels`, `annotations`. */}}
{{- define "agent.metadata" -}}
{{- $scope := dict "Values" .chart.Values "Chart" .chart.Chart "Release" .chart.Release "suffix" .suffix "extraLabels" .labels -}}
name: {{ quote .name }}
{{- if not .cluster }}
namespace: {{ quote .chart.Release.Namespace }}
{{- end }}
labels:
  {{- include "agent.labels" $scope | nindent 2 }}
{{- with include "agent.strings" (merge (dict) (default (dict) .annotations) (default (dict) .chart.Values.commonAnnotations)) }}
annotations:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
