{{/* The alerts of alerts.yaml, as this release wants them. */}}

{{/* The file, which is for those without the chart too, looks for DaemonSets and pods of the usual names; here they are known.
Kubernetes names a pod after its DaemonSet, at most 58 characters of it with a hyphen, and five of its own. */}}
{{- define "agent.alertsOfRelease" -}}
{{- $sets := list -}}
{{- $pods := list -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- if $nodes.create -}}
{{- $name := include "agent.name" (dict "Values" $.Values "Chart" $.Chart "Release" $.Release "suffix" $nodes.nameSuffix) -}}
{{- $sets = append $sets $name -}}
{{- $pods = append $pods (printf "%s-" $name | trunc 58) -}}
{{- end -}}
{{- end -}}
{{- $usualSets := `daemonset=~".*pod-identity-agent.*"` -}}
{{- $usualPods := `pod=~".*pod-identity-agent.*"` -}}
{{- $ourSets := printf `namespace="%s", daemonset=~"%s"` .Release.Namespace (join "|" $sets) -}}
{{- $ourPods := printf `namespace="%s", pod=~"(%s).{5}"` .Release.Namespace (join "|" $pods) -}}
{{- .Files.Get "alerts.yaml" | replace $usualSets $ourSets | replace $usualPods $ourPods -}}
{{- end }}

{{/* One alert: a list of the alert, what the values change of it, and the address of the runbook. A threshold stands in the
expression behind > or <, and in an annotation, which says which number it is. */}}
{{- define "agent.alert" -}}
{{- $alert := index . 0 -}}
{{- $change := index . 1 -}}
{{- with $change.severity }}{{ $_ := set $alert.labels "severity" . }}{{ end -}}
{{- with $change.for }}{{ $_ := set $alert "for" . }}{{ end -}}
{{- if hasKey $change "threshold" -}}
{{- $old := printf "([<>]) %s( |$)" (regexQuoteMeta $alert.annotations.threshold) -}}
{{- $number := include "agent.number" $change.threshold -}}
{{- $new := printf "${1} %s${2}" $number -}}
{{- $_ := set $alert "expr" (regexReplaceAll $old $alert.expr $new) -}}
{{- $_ := set $alert.annotations "threshold" $number -}}
{{- end -}}
{{- $_ := set $alert.annotations "runbook_url" (printf "%s#%s" (index . 2) (lower $alert.alert)) -}}
{{- toYaml $alert -}}
{{- end }}

{{/* All of them. A change to an alert that does not exist, or has no threshold, is refused: it would silently change nothing. */}}
{{- define "agent.alerts" -}}
{{- $rule := (include "agent.metrics" . | fromYaml).prometheusRule -}}
{{- $changes := default (dict) $rule.alerts -}}
{{- $runbook := default (printf "%s/docs/runbook.md" (trimSuffix "/" .Chart.Home)) $rule.runbookUrl -}}
{{- $group := first (include "agent.alertsOfRelease" . | fromYaml).groups -}}
{{- $known := list -}}
{{- $alerts := list -}}
{{- range $alert := $group.rules -}}
{{- $known = append $known $alert.alert -}}
{{- $change := default (dict) (get $changes $alert.alert) -}}
{{- if and (hasKey $change "threshold") (not (hasKey $alert.annotations "threshold")) -}}
{{- fail (printf "metrics.prometheusRule.alerts.%s.threshold: this alert has no threshold; it can be changed by for, severity and enabled" $alert.alert) -}}
{{- end -}}
{{- /* With OnDelete an update waits for people. */ -}}
{{- $waits := and (eq $alert.alert "PodIdentityUpdateStuck") (eq (dig "type" "" (default (dict) $.Values.updateStrategy)) "OnDelete") -}}
{{- if dig "enabled" (not $waits) $change -}}
{{- $alerts = append $alerts (include "agent.alert" (list $alert $change $runbook) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- range $name, $change := $changes -}}
{{- if not (has $name $known) -}}
{{- fail (printf "metrics.prometheusRule.alerts.%s: there is no such alert; alerts.yaml has %s" $name (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "groups" (list (dict "name" $group.name "rules" $alerts))) -}}
{{- end }}
