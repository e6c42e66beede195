{{/* Values of every type as the text that Kubernetes and the agent want. */}}

{{/* A scalar as it was written: a number of a values file is a float to Helm, and 2000000 would come out as 2e+06. Whole numbers
that a float has exactly come out in decimal; the schema refuses others. */}}
{{- define "agent.scalar" -}}
{{- if kindIs "float64" . -}}
{{- printf "%.0f" . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end }}

{{/* A number that may have a fraction, which quotes need not save: as it was written, unless it is very small. */}}
{{- define "agent.number" -}}
{{- if and (kindIs "float64" .) (ne . (floor .)) -}}
{{- toString . -}}
{{- else -}}
{{- include "agent.scalar" . -}}
{{- end -}}
{{- end }}

{{/* The seconds of a duration of one unit, as scrapes have it: 90s, 2m. Of another nothing. */}}
{{- define "agent.seconds" -}}
{{- if regexMatch "^[0-9]+s$" (toString .) -}}{{- trimSuffix "s" . -}}
{{- else if regexMatch "^[0-9]+m$" (toString .) -}}{{- mul 60 (trimSuffix "m" .) -}}
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

{{/* A command of one's own; those of the Amazon image mean our entrypoint. A list, or a string that reads as one. */}}
{{- define "agent.command" -}}
{{- if . -}}
{{- $command := ternary (toYaml .) (toString .) (kindIs "slice" .) -}}
{{- if not (or (contains "/go-runner" $command) (contains "/eks-pod-identity-agent" $command)) -}}
{{- $command -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* YAML reads `off` as false and `on` as true. */}}
{{- define "agent.blockImds" -}}
{{- $value := toString .Values.blockImds -}}
{{- get (dict "true" "on" "false" "off") $value | default $value -}}
{{- end }}

{{/* YAML reads `off` as false. */}}
{{- define "agent.mode" -}}
{{- ternary "off" (toString .) (eq "false" (toString .)) -}}
{{- end }}
