{{/* What values add up to: questions that more than one template asks. */}}

{{/* Whether port 80 is declared: only where nothing else protects the address, or where it is asked for. */}}
{{- define "agent.declaresPort" -}}
{{- $asked := .Values.agent.advertiseProxyPort -}}
{{- if ternary (not .Values.guardAddress) $asked (kindIs "invalid" $asked) -}}true{{- end -}}
{{- end }}

{{/* Whether Events are written: they are about pods that the watch has named. */}}
{{- define "agent.writesEvents" -}}
{{- if and .Values.kubernetes.enabled .Values.kubernetes.pods .Values.kubernetes.events -}}true{{- end -}}
{{- end }}

{{/* Whether a trial call is made: there must be somebody to ask. */}}
{{- define "agent.trialCall" -}}
{{- if and .Values.trialCall .Values.podIdentity -}}true{{- end -}}
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

{{- define "agent.tokenVerification" -}}
{{- include "agent.mode" .Values.tokenVerification -}}
{{- end }}

{{/* As YAML. Earlier charts of Amazon have these values under `agent`. */}}
{{- define "agent.metrics" -}}
{{- mergeOverwrite (deepCopy .Values.metrics) (default (dict) .Values.agent.metrics) | toYaml -}}
{{- end }}
