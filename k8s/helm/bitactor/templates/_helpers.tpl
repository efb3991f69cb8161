{{- define "bitactor.name" -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{- end }}
{{- define "bitactor.part" -}}{{ printf "%s-%s" (.root.Release.Name | trunc 40 | trimSuffix "-") .part }}{{- end }}
{{- define "bitactor.account" -}}{{ .Values.serviceAccount.name | default (include "bitactor.part" (dict "root" . "part" "sa")) }}{{- end }}
{{- define "bitactor.standalone" -}}{{ if eq .Values.mode "standalone" }}true{{ end }}{{- end }}

{{/* The labels that select the pods, and the one that clients carry to be let in. */}}
{{- define "bitactor.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "bitactor.clientLabel" -}}{{ include "bitactor.name" . }}-client{{- end }}

{{/* metadata: of every resource: (dict "root" . "name" NAME "as" KEY-IN-.Values.metadata, and "annotations", "labels";
"component": what is no pod of the service is labelled otherwise). */}}
{{- define "bitactor.metadata" -}}
{{- $root := .root -}}
{{- $own := get $root.Values.metadata .as | default dict -}}
{{- $labels := mergeOverwrite (dict
      "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version)
      "app.kubernetes.io/version" $root.Chart.AppVersion
      "app.kubernetes.io/managed-by" $root.Release.Service) (deepCopy $root.Values.commonLabels) (.labels | default dict) ($own.labels | default dict)
      (include "bitactor.selector" $root | fromYaml) -}}
{{- with .component }}{{ $_ := set $labels "app.kubernetes.io/name" (printf "%s-%s" $root.Chart.Name .) }}{{ end -}}
{{- $annotations := mergeOverwrite (dict) (deepCopy $root.Values.commonAnnotations) ($own.annotations | default dict) (.annotations | default dict) -}}
name: {{ .name }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "bitactor.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}{{- else -}}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{- end -}}
{{- end }}

{{/* auto: when the API is there. (dict "root" . "wish" VALUE "api" GROUP/VERSION/KIND) */}}
{{- define "bitactor.when" -}}
{{- if eq (toString .wish) "auto" -}}{{ if .root.Capabilities.APIVersions.Has .api }}true{{ end }}{{- else if eq (toString .wish) "true" -}}true{{- end -}}
{{- end }}

{{/* The names that the certificate is for. */}}
{{- define "bitactor.hosts" -}}
{{- $name := include "bitactor.name" . -}}
{{- $space := .Release.Namespace -}}
{{- concat (list $name (printf "%s.%s" $name $space) (printf "%s.%s.svc" $name $space) (printf "%s.%s.svc.cluster.local" $name $space) "localhost") .Values.tls.names | toJson -}}
{{- end }}
{{- define "bitactor.tlsSecret" -}}{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "bitactor.name" .)) }}{{- end }}
{{- define "bitactor.authSecret" -}}{{ .Values.auth.existingSecret | default (printf "%s-auth" (include "bitactor.name" .)) }}{{- end }}
{{- define "bitactor.adminSecret" -}}{{ .Values.auth.admin.existingSecret | default (printf "%s-token-admin" (include "bitactor.name" .)) }}{{- end }}
{{- define "bitactor.tokenSecret" -}}{{ printf "%s-token-%s" (include "bitactor.name" .root) .identity }}{{- end }}

{{/* The app: where its files are, and which is served. */}}
{{- define "bitactor.appDirectory" -}}{{ .Values.app.directory | default "/app" }}{{- end }}
{{- define "bitactor.appFile" -}}
{{- $files := keys .Values.app.files | sortAlpha -}}
{{- if .Values.app.file -}}{{ .Values.app.file }}
{{- else if eq (len $files) 1 -}}{{ first $files }}
{{- else if gt (len $files) 1 -}}{{ fail "app.file: several app.files are given; say which one is the app" }}
{{- else -}}app.py{{- end -}}
{{- end }}
{{- define "bitactor.appConfigMap" -}}
{{- if .Values.app.existingConfigMap -}}{{ .Values.app.existingConfigMap }}
{{- else if not (or .Values.app.directory .Values.app.volume) -}}{{ include "bitactor.part" (dict "root" . "part" "app") }}{{- end -}}
{{- end }}

{{/* bitactor.toml: the chart's own settings and those of config. */}}
{{- define "bitactor.toml" -}}
{{- $own := dict
      "app" (printf "%s/%s" (include "bitactor.appDirectory" .) (include "bitactor.appFile" .))
      "data_dir" "/var/lib/bitactor/data"
      "ingest" (dict "host" "0.0.0.0" "port" 9090)
      "admin" (dict "host" "0.0.0.0" "port" 8080 "token_file" "/etc/bitactor/admin/token")
      "tls" (dict "cert_file" "/etc/bitactor/tls/tls.crt" "key_file" "/etc/bitactor/tls/tls.key")
      "auth" (dict "file" "/etc/bitactor/auth/identities.toml")
      "log" (dict "kind" "sqlite")
      "logging" (dict "format" "json")
      "shutdown" (dict "grace_s" .Values.shutdown.drainSeconds) -}}
{{- if .Values.tls.clientCertificates.existingSecret -}}
{{- $_ := set $own.tls "client_ca_file" (printf "/etc/bitactor/client-ca/%s" .Values.tls.clientCertificates.key) -}}
{{- $_ := set $own.tls "client_required" .Values.tls.clientCertificates.required -}}
{{- end -}}
{{- if not (include "bitactor.standalone" .) -}}
{{- $_ := set $own.log "kind" "jetstream" -}}
{{- $nats := dict "urls" .Values.nats.url -}}
{{- with .Values.nats.credentials }}{{ if .existingSecret -}}
{{- $_ := set $nats (ternary "nkey_file" "credentials_file" (eq .kind "nkey")) (printf "/etc/bitactor/nats/%s" .key) -}}
{{- end }}{{ end -}}
{{- with .Values.nats.password }}{{ if .existingSecret -}}
{{- $_ := set $nats "user" .user -}}
{{- $_ := set $nats "password_file" (printf "/etc/bitactor/nats-password/%s" .key) -}}
{{- end }}{{ end -}}
{{- with .Values.nats.ca }}{{ if .existingSecret }}{{ $_ := set $nats "tls_ca_file" (printf "/etc/bitactor/nats-ca/%s" .key) }}{{ end }}{{ end -}}
{{- if .Values.nats.clientCertificate.existingSecret -}}
{{- $_ := set $nats "tls_cert_file" "/etc/bitactor/nats-certificate/tls.crt" -}}
{{- $_ := set $nats "tls_key_file" "/etc/bitactor/nats-certificate/tls.key" -}}
{{- end -}}
{{- $_ := set $own "nats" $nats -}}
{{- end -}}
{{- $all := mergeOverwrite (deepCopy .Values.config) $own -}}
# Made by the chart; the settings are in docs/configuration.md.
{{- range $name, $value := $all }}{{ if not (kindIs "map" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end }}{{ end }}
{{- range $section, $values := $all }}{{ if kindIs "map" $values }}

[{{ $section }}]
{{- range $name, $value := $values }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- end }}{{ end }}
{{- end }}

{{- define "bitactor.checks" -}}
{{- if and (not (include "bitactor.standalone" .)) (not .Values.nats.url) -}}
{{ fail "nats.url: mode cluster keeps its log in NATS JetStream; say where it is, such as nats://nats.nats.svc:4222, or set mode=standalone" }}
{{- end -}}
{{- if and .Values.nats.credentials.existingSecret .Values.nats.password.existingSecret -}}
{{ fail "nats.password: nats.credentials says already who this is; choose one" }}
{{- end -}}
{{- if and (eq .Values.tls.source "secret") (not .Values.tls.existingSecret) -}}
{{ fail "tls.existingSecret: needed, because tls.source is secret" }}
{{- end -}}
{{- if and (eq .Values.tls.source "certManager") (not .Values.tls.certManager.issuerRef.name) -}}
{{ fail "tls.certManager.issuerRef: needed, because tls.source is certManager" }}
{{- end -}}
{{- if le (int .Values.shutdown.graceSeconds) (add (int .Values.shutdown.preStopSeconds) (int .Values.shutdown.drainSeconds)) -}}
{{ fail "shutdown.graceSeconds: more than shutdown.preStopSeconds and shutdown.drainSeconds together, or pods are killed while they drain" }}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{ fail "autoscaling.maxReplicas: less than autoscaling.minReplicas" }}
{{- end -}}
{{- if gt (len (compact (list .Values.app.existingConfigMap .Values.app.directory (ternary "volume" "" (not (empty .Values.app.volume))) (ternary "files" "" (not (empty .Values.app.files)))))) 1 -}}
{{ fail "app: one of files, existingConfigMap, volume and directory" }}
{{- end -}}
{{- end }}
