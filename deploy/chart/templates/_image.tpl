{{/* The image. */}}

{{/* A whole reference, or what it is made of. A registry for all charts of a release (`global.imageRegistry`) takes precedence over this
chart's own, which Amazon's chart calls containerRegistry. With a digest alone no tag is needed. */}}
{{- define "agent.image" -}}
{{- $image := .Values.image -}}
{{- $registry := coalesce (dig "imageRegistry" "" (default (dict) .Values.global)) $image.registry $image.containerRegistry -}}
{{- $reference := join "/" (compact (list $registry $image.repository)) -}}
{{- $tag := ternary $image.tag (default .Chart.AppVersion $image.tag) (not (empty $image.digest)) -}}
{{- with $tag }}{{ $reference = printf "%s:%s" $reference (include "agent.scalar" .) }}{{ end -}}
{{- with $image.digest }}{{ $reference = printf "%s@%s" $reference . }}{{ end -}}
{{- default $reference $image.override -}}
{{- end }}
