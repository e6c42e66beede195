{{/* Values that cannot work are refused with a sentence, instead of a pod that does not start. */}}
{{- define "agent.check" -}}
{{- /* Helm takes a value that is null out of the chart, with all that is in it. */ -}}
{{- range $section := list "env" "image" "agent" "init" "metrics" "daemonsets" "serviceAccount" "updateStrategy" "webIdentity" -}}
{{- if not (kindIs "map" (get $.Values.AsMap $section)) -}}
{{- fail (printf "%s must not be null: leave it out to have the chart's own" $section) -}}
{{- end -}}
{{- end -}}
{{- $metrics := include "agent.metrics" . | fromYaml -}}
{{- range $section := list "serviceMonitor" "podMonitor" "prometheusRule" "grafanaDashboard" -}}
{{- if not (kindIs "map" (get $metrics $section)) -}}
{{- fail (printf "metrics.%s must not be null: leave it out to have the chart's own" $section) -}}
{{- end -}}
{{- end -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- if not (kindIs "map" $nodes) -}}
{{- fail (printf "daemonsets.%s must not be null: set daemonsets.%s.create=false to have none" $kind $kind) -}}
{{- end -}}
{{- end -}}
{{- $names := dict -}}
{{- $everywhere := list -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- $ours := has $kind (list "cloud" "hybrid" "hybrid-bottlerocket") -}}
{{- if and (not $ours) (eq (len (omit $nodes "create")) 0) -}}
{{- fail (printf "daemonsets.%s is no kind of nodes that this chart has, and sets nothing but create: the chart's are cloud, hybrid and hybrid-bottlerocket; one of your own needs a nameSuffix and an affinity" $kind) -}}
{{- end -}}
{{- if $nodes.create -}}
{{- $name := include "agent.name" (dict "Values" $.Values "Chart" $.Chart "Release" $.Release "suffix" $nodes.nameSuffix) -}}
{{- if hasKey $names $name -}}
{{- fail (printf "daemonsets.%s and daemonsets.%s are both named %s: give one of them another nameSuffix" (get $names $name) $kind $name) -}}
{{- end -}}
{{- $_ := set $names $name $kind -}}
{{- if not $nodes.affinity }}{{ $everywhere = append $everywhere $kind }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if gt (len $everywhere) 1 -}}
{{- fail (printf "daemonsets.%s have no affinity of their own, so that each of their nodes would have two agents: set one in all of them but one" (join " and daemonsets." $everywhere)) -}}
{{- end -}}
{{- $service := include "agent.name" . -}}
{{- if and $metrics.enabled (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $service)) -}}
{{- fail (printf "the Service of the metrics would be named %s, which Kubernetes does not take: only a-z, 0-9 and hyphens; set fullnameOverride" $service) -}}
{{- end -}}
{{- if or (not .Values.clusterName) (eq .Values.clusterName "EKS_CLUSTER_NAME") -}}
{{- fail "clusterName is required: the name of the EKS cluster" -}}
{{- end -}}
{{- if eq (toString .Values.env.AWS_REGION) "AWS_REGION_NAME" -}}
{{- fail "env.AWS_REGION is still a placeholder: set it to the region of the EKS cluster, or leave it out to have that of the instance" -}}
{{- end -}}
{{- range $kind := list "hybrid" "hybrid-bottlerocket" -}}
{{- $nodes := get $.Values.daemonsets $kind -}}
{{- $env := merge (dict) (default (dict) $nodes.env) $.Values.env -}}
{{- $flags := merge (dict) (default (dict) $nodes.additionalArgs) (default (dict) $.Values.agent.additionalArgs) -}}
{{- if and $nodes.create (not (or $env.AWS_REGION $env.AWS_DEFAULT_REGION (get $flags "--region") $.Values.envFrom)) -}}
{{- fail (printf "daemonsets.%s needs env.AWS_REGION: hybrid nodes have no instance metadata service to read the region from" $kind) -}}
{{- end -}}
{{- end -}}
{{- if contains "eks/eks-pod-identity-agent" (include "agent.image" .) -}}
{{- fail (printf "the image %s is the Amazon agent's, which this chart does not start: set image.override or image.repository to an image of pod-identity-agent" (include "agent.image" .)) -}}
{{- end -}}
{{- /* The accounts of Amazon's images, by region; any other ECR registry may be the user's own. docs.aws.amazon.com/eks/latest/userguide/add-ons-images.html */ -}}
{{- $amazons := list
    "602401143452" "800184023465" "877085696533" "558608220178" "590381155156" "900889452093" "918309763551"
    "961992271922" "151742754352" "013241004608" "455263428931" "066635153087" "759879836304" "491585149902"
    "296578399912" "761377655185" "900612956339" "151610086707" "121268973566" "730335286997" "533267051163" -}}
{{- if regexMatch (printf "^(%s)[.]dkr[.]ecr[.]" (join "|" $amazons)) (include "agent.image" .) -}}
{{- fail (printf "the image %s is in a registry of Amazon's, which holds the Amazon agent's image: set image.override to an image of pod-identity-agent, or remove image.containerRegistry" (include "agent.image" .)) -}}
{{- end -}}
{{- if and (contains "-eksbuild." (toString .Values.image.tag)) (not .Values.image.override) -}}
{{- fail (printf "image.tag %s is a version of the Amazon agent: remove it, or set it to a version of pod-identity-agent" .Values.image.tag) -}}
{{- end -}}
{{- $advertises := include "agent.declaresPort" . -}}
{{- $surge := include "agent.surge" . -}}
{{- if and $advertises $surge -}}
{{- fail "updateStrategy.rollingUpdate.maxSurge needs a port 80 that is not declared, that is guardAddress=true and no agent.advertiseProxyPort: a new pod that declares it cannot be scheduled beside the old one" -}}
{{- end -}}
{{- if and $surge (ne (toString .Values.agent.readinessEndpoint) "/readyz") -}}
{{- fail "updateStrategy.rollingUpdate.maxSurge needs agent.readinessEndpoint=/readyz: what asks by the probe port is answered by the old agent, which is then ended for a new one that may not work" -}}
{{- end -}}
{{- if and .Values.sharePort (not .Values.guardAddress) -}}
{{- fail "sharePort needs guardAddress: without it, nothing listens for pods" -}}
{{- end -}}
{{- if and .Values.jwks (not .Values.issuers) -}}
{{- fail "jwks needs issuers: the issuers of the tokens that these keys verify" -}}
{{- end -}}
{{- if and .Values.issuers (not .Values.jwks) (not .Values.kubernetes.enabled) -}}
{{- fail "issuers needs jwks or kubernetes.enabled: without the keys of these issuers no token is verified here" -}}
{{- end -}}
{{- if and (eq "required" (include "agent.tokenVerification" .)) (not .Values.jwks) (not .Values.kubernetes.enabled) -}}
{{- fail "tokenVerification=required needs jwks or kubernetes.enabled: without keys no pod would be served" -}}
{{- end -}}
{{- $annotations := and .Values.kubernetes.enabled .Values.kubernetes.serviceAccounts -}}
{{- $map := include "agent.roleMap" . -}}
{{- if and .Values.kubernetes.serviceAccounts (not .Values.kubernetes.enabled) -}}
{{- fail "kubernetes.serviceAccounts needs kubernetes.enabled: annotations are read at the API server" -}}
{{- end -}}
{{- if and .Values.webIdentity.roleMap .Values.webIdentity.roleMapConfigMap -}}
{{- fail "webIdentity.roleMap and webIdentity.roleMapConfigMap are both set: set one of them" -}}
{{- end -}}
{{- if and (not (kindIs "invalid" .Values.webIdentity.roleLimits)) (not $annotations) (not $map) -}}
{{- fail "webIdentity.roleLimits needs kubernetes.serviceAccounts or webIdentity.roleMap: there are no roles to limit" -}}
{{- end -}}
{{- if and (not .Values.podIdentity) (not $annotations) (not $map) -}}
{{- fail "podIdentity=false needs kubernetes.serviceAccounts or webIdentity.roleMap: otherwise nobody is served" -}}
{{- end -}}
{{- if and (or $annotations $map) (or (eq "off" (include "agent.tokenVerification" .)) (and (not .Values.jwks) (not .Values.kubernetes.enabled))) -}}
{{- fail "roles of service accounts need tokens that are verified: jwks or kubernetes.enabled, and not tokenVerification=off" -}}
{{- end -}}
{{- $owned := dict "--manage-link" "manageLink" "--guard-address" "guardAddress" "--share-port" "sharePort" "--block-imds" "blockImds" "--probe-namespace" "probeNamespace" -}}
{{- $flags := dict "agent" .Values.agent.additionalArgs -}}
{{- range $kind, $nodes := .Values.daemonsets }}{{ $_ := set $flags (printf "daemonsets.%s" $kind) $nodes.additionalArgs }}{{ end -}}
{{- range $where, $has := $flags -}}
{{- range $flag, $value := $owned -}}
{{- if hasKey (default (dict) $has) $flag -}}
{{- fail (printf "%s.additionalArgs has %s: set the value %s instead, which also adds the capability that the flag needs" $where $flag $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "agent.checkEndpoints" . -}}
{{- if and $metrics.enabled $metrics.serviceMonitor.enabled $metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor are both enabled, and each pod would be scraped twice: enable one of them" -}}
{{- end -}}
{{- range $name := list "serviceMonitor" "podMonitor" -}}
{{- $monitor := get $metrics $name -}}
{{- $interval := include "agent.seconds" $monitor.interval -}}
{{- $timeout := include "agent.seconds" $monitor.scrapeTimeout -}}
{{- if and $interval $timeout (gt (int $timeout) (int $interval)) -}}
{{- fail (printf "metrics.%s.scrapeTimeout is %s, longer than the interval of %s: the operator would drop the monitor" $name $monitor.scrapeTimeout $monitor.interval) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "podLivenessCheck" "podLiveness" -}}
{{- if dig $key "enabled" false $.Values.AsMap -}}
{{- fail (printf "%s.enabled is not supported: this agent does not use the API server, so it does not watch pods; remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.manageLink) (not .Values.init.create) -}}
{{- fail "either manageLink or init.create must be true: otherwise nodes do not have the addresses" -}}
{{- end -}}
{{- end }}

{{/* Tokens must not leave the node unencrypted: the agent would refuse to start, on every node. Its flags and its environment both
name endpoints. */}}
{{- define "agent.checkEndpoints" -}}
{{- $sources := dict "agent.additionalArgs" .Values.agent.additionalArgs "env" .Values.env -}}
{{- range $kind, $nodes := .Values.daemonsets -}}
{{- $_ := set $sources (printf "daemonsets.%s.additionalArgs" $kind) $nodes.additionalArgs -}}
{{- $_ := set $sources (printf "daemonsets.%s.env" $kind) $nodes.env -}}
{{- end -}}
{{- range $where, $has := $sources -}}
{{- range $name := list "--endpoint" "--sts-endpoint" "AWS_ENDPOINT_URL" "AWS_ENDPOINT_URL_EKS_AUTH" "AWS_ENDPOINT_URL_STS" -}}
{{- $endpoint := lower (toString (get (default (dict) $has) $name)) -}}
{{- if and (hasPrefix "http://" $endpoint) (not (regexMatch "^http://(localhost|127[.][0-9.]+|169[.]254[.][0-9.]+|\\[::1\\]|\\[fe80:[^]]*\\])(:|/|$)" $endpoint)) -}}
{{- fail (printf "%s has %s=%s: tokens would leave the node unencrypted; http is for addresses of the node only, such as 127.0.0.1, so use https" $where $name $endpoint) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
