{{/* The pod of both modes. */}}
{{- define "bitactor.pod" -}}
{{- $own := get .Values.metadata "pod" | default dict -}}
metadata:
  labels:
    {{- mergeOverwrite (dict) (deepCopy .Values.commonLabels) ($own.labels | default dict) (include "bitactor.selector" . | fromYaml) | toYaml | nindent 4 }}
  annotations:
    {{- mergeOverwrite (dict "kubectl.kubernetes.io/default-container" "bitactor") (deepCopy .Values.commonAnnotations) ($own.annotations | default dict) | toYaml | nindent 4 }}
    checksum/config: {{ include "bitactor.toml" . | sha256sum }}
    checksum/app: {{ toJson .Values.app | printf "%s%s" (.Files.Get "files/app.py") | sha256sum }}
spec:
  serviceAccountName: {{ include "bitactor.account" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.shutdown.graceSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ .Values.podUser }}
    runAsGroup: {{ .Values.podUser }}
    fsGroup: {{ .Values.podUser }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and .Values.topologySpread.enabled (not (include "bitactor.standalone" .)) }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "bitactor.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  containers:
    - name: bitactor
      image: {{ include "bitactor.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        - {name: BITACTOR_CONFIG, value: /etc/bitactor/config/bitactor.toml}
        - {name: BITACTOR_CACHE_DIR, value: /var/cache/bitactor/handlers}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: signals, containerPort: 9090, protocol: TCP}
        - {name: admin, containerPort: 8080, protocol: TCP}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities:
          drop: [ALL]
      startupProbe:
        httpGet: {path: /startupz, port: admin}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      {{- if gt (int .Values.shutdown.preStopSeconds) 0 }}
      lifecycle:
        preStop: # endpoints are taken away meanwhile, so that nobody is sent to a pod that drains
          {{- if semverCompare ">=1.30-0" (.Values.kubeVersion | default .Capabilities.KubeVersion.Version) }}
          sleep: {seconds: {{ .Values.shutdown.preStopSeconds }}}
          {{- else }}
          exec:
            command: [/opt/bitactor/bin/python, -I, -S, -c, "import time; time.sleep({{ .Values.shutdown.preStopSeconds }})"]
          {{- end }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/bitactor/config, readOnly: true}
        - {name: tls, mountPath: /etc/bitactor/tls, readOnly: true}
        - {name: auth, mountPath: /etc/bitactor/auth, readOnly: true}
        - {name: admin-token, mountPath: /etc/bitactor/admin, readOnly: true}
        {{- if .Values.tls.clientCertificates.existingSecret }}
        - {name: client-ca, mountPath: /etc/bitactor/client-ca, readOnly: true}
        {{- end }}
        {{- range include "bitactor.natsSecrets" . | fromJsonArray }}
        - {name: {{ .name }}, mountPath: /etc/bitactor/{{ .name }}, readOnly: true}
        {{- end }}
        {{- if not .Values.app.directory }}
        - {name: app, mountPath: /app, readOnly: true}
        {{- end }}
        - {name: data, mountPath: /var/lib/bitactor}
        - {name: cache, mountPath: /var/cache/bitactor}
        - {name: temporary, mountPath: /tmp}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "bitactor.part" (dict "root" . "part" "config") }}}
    - name: tls
      secret:
        secretName: {{ include "bitactor.tlsSecret" . }}
        defaultMode: 0440
        items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
    - name: auth
      secret: {secretName: {{ include "bitactor.authSecret" . }}, defaultMode: 0440}
    - name: admin-token
      secret: {secretName: {{ include "bitactor.adminSecret" . }}, defaultMode: 0440}
    {{- if .Values.tls.clientCertificates.existingSecret }}
    - name: client-ca
      secret: {secretName: {{ .Values.tls.clientCertificates.existingSecret }}, defaultMode: 0440}
    {{- end }}
    {{- range include "bitactor.natsSecrets" . | fromJsonArray }}
    - name: {{ .name }}
      secret: {secretName: {{ .secret }}, defaultMode: 0440}
    {{- end }}
    {{- if not .Values.app.directory }}
    - name: app
      {{- if .Values.app.volume }}
      {{- toYaml .Values.app.volume | nindent 6 }}
      {{- else }}
      configMap: {name: {{ include "bitactor.appConfigMap" . }}}
      {{- end }}
    {{- end }}
    {{- if not (include "bitactor.standalone" .) }}
    - name: data
      emptyDir: {sizeLimit: {{ .Values.temporary.size }}}
    {{- end }}
    - name: cache
      emptyDir: {sizeLimit: {{ .Values.cache.size }}}
    - name: temporary
      emptyDir: {sizeLimit: {{ .Values.temporary.size }}}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Secrets for NATS: name of the volume and directory, and the Secret. */}}
{{- define "bitactor.natsSecrets" -}}
{{- $found := list }}
{{- if not (include "bitactor.standalone" .) }}
{{- range $name, $value := dict "nats" .Values.nats.credentials "nats-ca" .Values.nats.ca "nats-certificate" .Values.nats.clientCertificate "nats-password" .Values.nats.password }}
{{- with $value.existingSecret }}{{ $found = append $found (dict "name" $name "secret" .) }}{{ end }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}
