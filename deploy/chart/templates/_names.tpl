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
{{- include "agent.strings" (merge $fixed (default (dict) .Values.podLabels)) -}}
{{- end }}

{{/* Labels of objects, in one map with those of the object alone: a key that stood there twice would be no YAML. */}}
{{- define "agent.labels" -}}
{{- $labels := merge (include "agent.selector" . | fromYaml) (include "agent.ours" . | fromYaml) (dict
    "app.kubernetes.io/version" .Chart.AppVersion
    "app.kubernetes.io/managed-by" .Release.Service
    "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")) -}}
{{- include "agent.strings" (merge $labels (default (dict) .extraLabels)) -}}
{{- end }}

{{/* A scalar as it was written: a number of a values file is a float to Helm, and 2000000 would come out as 2e+06. Whole numbers
that a float has exactly come out in decimal; the schema refuses others. */}}
{{- define "agent.scalar" -}}
{{- if kindIs "float64" . -}}
{{- printf "%.0f" . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end }}

{{/* A map to text: what labels, annotations, environment and node selectors have to be, whatever a values file says. */}}
{{- define "agent.strings" -}}
{{- $lines := list -}}
{{- range $key, $value := ternary . (dict) (kindIs "map" .) -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $lines = append $lines (printf "%s: %s" (toYaml $key) (include "agent.scalar" $value | quote)) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end }}

{{/* Flags, each with its value. */}}
{{- define "agent.flags" -}}
{{- $lines := list -}}
{{- range $flag, $value := ternary . (dict) (kindIs "map" .) -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $lines = append $lines (printf "- %s" (printf "%s=%s" $flag (include "agent.scalar" $value) | quote)) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end }}

{{- define "agent.image" -}}
{{- $image := .Values.image -}}
{{- $repository := $image.repository -}}
{{- with $image.containerRegistry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- default (printf "%s:%s" $repository (include "agent.scalar" (default .Chart.AppVersion $image.tag))) $image.override -}}
{{- end }}

{{- define "agent.serviceAccount" -}}
{{- $account := .Values.serviceAccount -}}
{{- $own := include "agent.name" (dict "Values" .Values "Chart" .Chart "Release" .Release) -}}
{{- default (ternary $own "" $account.create) $account.name -}}
{{- end }}

{{/* The command that waits for each DaemonSet. */}}
{{- define "agent.rollouts" -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- if $nodes.create }}
  kubectl -n {{ $.Release.Namespace }} rollout status daemonset/{{ include "agent.name" (dict "Values" $.Values "Chart" $.Chart "Release" $.Release "suffix" $nodes.nameSuffix) }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Whether Events are written: they are about pods that the watch has named. */}}
{{- define "agent.writesEvents" -}}
{{- if and .Values.kubernetes.enabled .Values.kubernetes.pods .Values.kubernetes.events -}}true{{- end -}}
{{- end }}

{{/* Whether there is a role map. */}}
{{- define "agent.roleMap" -}}
{{- if or .Values.webIdentity.roleMap .Values.webIdentity.roleMapConfigMap -}}true{{- end -}}
{{- end }}

{{/* Volumes with what the agent reads of roles, as a JSON list of names. */}}
{{- define "agent.roleFiles" -}}
{{- $files := list -}}
{{- if include "agent.roleMap" . }}{{ $files = append $files "role-map" }}{{ end -}}
{{- if not (kindIs "invalid" .Values.webIdentity.roleLimits) }}{{ $files = append $files "role-limits" }}{{ end -}}
{{- toJson $files -}}
{{- end }}

{{/* YAML reads `off` as false. */}}
{{- define "agent.mode" -}}
{{- ternary "off" (toString .) (eq "false" (toString .)) -}}
{{- end }}

{{- define "agent.tokenVerification" -}}
{{- include "agent.mode" .Values.tokenVerification -}}
{{- end }}

{{/* Whether port 80 is declared: only where nothing else protects the address, or where it is asked for. */}}
{{- define "agent.declaresPort" -}}
{{- $asked := .Values.agent.advertiseProxyPort -}}
{{- if ternary (not .Values.guardAddress) $asked (kindIs "invalid" $asked) -}}true{{- end -}}
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
