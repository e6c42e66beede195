{{/* The image. */}}

{{- define "agent.image" -}}
{{- $image := .Values.image -}}
{{- $repository := $image.repository -}}
{{- with $image.containerRegistry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- default (printf "%s:%s" $repository (include "agent.scalar" (default .Chart.AppVersion $image.tag))) $image.override -}}
{{- end }}
