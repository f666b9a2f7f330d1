{{- define "portcullis.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 49 characters: "-configuration" and the like fit in 63. */}}
{{- define "portcullis.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 49 | trimSuffix "-" }}
{{- else }}
{{- $name := include "portcullis.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 49 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 49 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "portcullis.selectorLabels" -}}
app.kubernetes.io/name: {{ include "portcullis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "portcullis.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "portcullis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "portcullis.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- with .Values.image -}}
{{ .repository }}:{{ $tag }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{- define "portcullis.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "portcullis.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "portcullis.configSecret" -}}
{{- default (printf "%s-configuration" (include "portcullis.fullname" .)) .Values.config.existingSecret }}
{{- end }}

{{/* The Secret with the secrets; empty if there is none. */}}
{{- define "portcullis.secrets" -}}
{{- if .Values.secrets.existingSecret }}
{{- .Values.secrets.existingSecret }}
{{- else if .Values.secrets.values }}
{{- printf "%s-secrets" (include "portcullis.fullname" .) }}
{{- end }}
{{- end }}

{{- define "portcullis.claim" -}}
{{- default (printf "%s-data" (include "portcullis.fullname" .)) .Values.database.sqlite.existingClaim }}
{{- end }}

{{/* Whether more than one replica may run: "true" or empty. */}}
{{- define "portcullis.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}true{{ end }}
{{- end }}

{{/* Refuses values that contradict each other, which the schema cannot see. */}}
{{- define "portcullis.validate" -}}
{{- $v := .Values -}}
{{- if and $v.config.toml $v.config.existingSecret }}
{{- fail "config.toml and config.existingSecret: set one of them" }}
{{- end }}
{{- if not (or $v.config.toml $v.config.existingSecret) }}
{{- fail "config: set config.toml (--set-file config.toml=portcullis.toml), or config.existingSecret" }}
{{- end }}
{{- if and $v.secrets.existingSecret $v.secrets.values }}
{{- fail "secrets.existingSecret and secrets.values: set one of them" }}
{{- end }}
{{- $secrets := include "portcullis.secrets" . }}
{{- range $name := list "secretKey" "metricsToken" }}
{{- if and (get $v.secrets.keys $name) (not $secrets) }}
{{- fail (printf "secrets.keys.%s names a key of no Secret: set secrets.existingSecret or secrets.values" $name) }}
{{- end }}
{{- end }}
{{- if $v.secrets.values }}
{{- range $name, $key := $v.secrets.keys }}
{{- if and $key (not (hasKey $v.secrets.values $key)) }}
{{- fail (printf "secrets.keys.%s is %q, which secrets.values does not have" $name $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq $v.database.engine "sqlite" }}
{{- if gt (int $v.replicas) 1 }}
{{- fail "replicas: SQLite allows one replica. Set database.engine to postgresql for several" }}
{{- end }}
{{- if $v.autoscaling.enabled }}
{{- fail "autoscaling: SQLite allows one replica. Set database.engine to postgresql for several" }}
{{- end }}
{{- if $v.database.postgresql.existingSecret }}
{{- fail "database.postgresql.existingSecret is set, but database.engine is sqlite" }}
{{- end }}
{{- else }}
{{- if not $v.database.postgresql.existingSecret }}
{{- fail "database.postgresql.existingSecret: name a Secret with the URL of PostgreSQL" }}
{{- end }}
{{- if not $v.secrets.keys.secretKey }}
{{- fail "secrets.keys.secretKey: with PostgreSQL all replicas share one secret key. Name the key of the Secret that has it" }}
{{- end }}
{{- if $v.database.sqlite.existingClaim }}
{{- fail "database.sqlite.existingClaim is set, but database.engine is postgresql" }}
{{- end }}
{{- end }}
{{- if and $v.autoscaling.enabled (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) }}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" }}
{{- end }}
{{- if lt (int $v.terminationGracePeriodSeconds) (add (int $v.shutdownDelaySeconds) 15 | int) }}
{{- fail "terminationGracePeriodSeconds: at least shutdownDelaySeconds and 15 seconds, or requests are cut" }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.host) }}
{{- fail "ingress.host: set the host of public_url" }}
{{- end }}
{{- if $v.httpRoute.enabled }}
{{- if not $v.httpRoute.parentRefs }}
{{- fail "httpRoute.parentRefs: name the Gateway" }}
{{- end }}
{{- if not $v.httpRoute.hostnames }}
{{- fail "httpRoute.hostnames: set the host of public_url" }}
{{- end }}
{{- end }}
{{- range $host := append $v.httpRoute.hostnames $v.ingress.host }}
{{- if and $host $v.admin.enabled (eq $host (get (urlParse $v.admin.url) "hostname")) }}
{{- fail (printf "admin.url is on %s, the host of the public listener: the admin pages are never reached there" $host) }}
{{- end }}
{{- end }}
{{- if and $v.serviceMonitor.enabled (not $v.admin.enabled) }}
{{- fail "serviceMonitor: /metrics is on the admin listener. Set admin.enabled" }}
{{- end }}
{{- if eq (int $v.admin.port) 8000 }}
{{- fail "admin.port: 8000 is the public listener's" }}
{{- end }}
{{- end }}
