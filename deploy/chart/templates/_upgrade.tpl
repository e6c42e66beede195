{{/* An upgrade of a release of Amazon's chart, as the cluster has it. */}}

{{/* A DaemonSet of this release that gets another name is removed from all nodes at once, with every pod's credentials; and one that
keeps its name cannot get another selector. Both are refused, with the values that avoid it. Looked up by name: `helm template`, and
those who may not read DaemonSets, have nothing here to see. The names are those of Amazon's default values, and of none. */}}
{{- define "agent.checkUpgrade" -}}
{{- $ours := dict -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- if $nodes.create -}}
{{- $scope := dict "Values" $.Values "Chart" $.Chart "Release" $.Release "suffix" $nodes.nameSuffix -}}
{{- $_ := set $ours (include "agent.name" $scope) (include "agent.selector" $scope | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "eks-pod-identity-agent" (printf "%s-eks-pod-identity-agent" .Release.Name) .Release.Name -}}
{{- range $suffix := list "" "-hybrid" "-hybrid-bottlerocket" -}}
{{- $found := lookup "apps/v1" "DaemonSet" $.Release.Namespace (printf "%s%s" $name $suffix) -}}
{{- if hasPrefix "eks-pod-identity-agent-" (dig "metadata" "labels" "helm.sh/chart" "" $found) -}}
{{- if eq $.Release.Name (dig "metadata" "annotations" "meta.helm.sh/release-name" "" $found) -}}
{{- $selector := dig "spec" "selector" "matchLabels" (dict) $found -}}
{{- if ne (toJson $selector) (toJson (get $ours $found.metadata.name)) -}}
{{- fail (printf "this release has the DaemonSet %s of Amazon's chart, with the selector %s, and with these values it would be removed from all nodes at once: set nameOverride=eks-pod-identity-agent and fullnameOverride=%s, and have its kind of nodes in daemonsets (docs/install.md, Replacing the Amazon agent)" $found.metadata.name (toJson $selector) $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
