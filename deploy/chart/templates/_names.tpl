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

{{/* What cannot work is said in a sentence, and not by a pod that does not start. */}}
{{- define "agent.check" -}}
{{- if or (not .Values.clusterName) (eq .Values.clusterName "EKS_CLUSTER_NAME") -}}
{{- fail "clusterName is required: the name of the EKS cluster" -}}
{{- end -}}
{{- if or (not .Values.env.AWS_REGION) (eq .Values.env.AWS_REGION "AWS_REGION_NAME") -}}
{{- fail "env.AWS_REGION is required: the region of the EKS cluster" -}}
{{- end -}}
{{- if contains "eks/eks-pod-identity-agent" (include "agent.image" .) -}}
{{- fail (printf "the image %s is the Amazon agent's, which this chart does not start: set image.override or image.repository to an image of pod-identity-agent" (include "agent.image" .)) -}}
{{- end -}}
{{- if regexMatch "^[0-9]{12}\\.dkr\\.ecr\\..*" (toString .Values.image.containerRegistry) -}}
{{- if and (eq .Values.image.repository "pod-identity-agent") (not .Values.image.override) -}}
{{- fail (printf "image.containerRegistry is %s, where the Amazon agent's image lives: set image.override or image.repository to an image of pod-identity-agent, or leave the registry out" .Values.image.containerRegistry) -}}
{{- end -}}
{{- end -}}
{{- $advertises := ternary (not .Values.guardAddress) .Values.agent.advertiseProxyPort (kindIs "invalid" .Values.agent.advertiseProxyPort) -}}
{{- $surge := toString (default 0 (dig "rollingUpdate" "maxSurge" 0 .Values.updateStrategy)) -}}
{{- if and $advertises (not (has $surge (list "0" "0%"))) -}}
{{- fail "updateStrategy.rollingUpdate.maxSurge needs agent.advertiseProxyPort=false (and guardAddress in its place): a new pod cannot be scheduled beside an old one that has declared port 80" -}}
{{- end -}}
{{- if and .Values.sharePort (not .Values.guardAddress) -}}
{{- fail "sharePort needs guardAddress: else nothing listens for the pods" -}}
{{- end -}}
{{- if and (not .Values.manageLink) (not .Values.init.create) -}}
{{- fail "either manageLink or init.create must be true: else no node has the addresses" -}}
{{- end -}}
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
