{{- define "vlibrary.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | replace (printf "%s-%s" .Chart.Name .Chart.Name) .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "vlibrary.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* What selects the pods of one part: takes a list of the root and the part's name. */}}
{{- define "vlibrary.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "vlibrary.image" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end }}{{ $name }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{- define "vlibrary.workerSecretName" -}}
{{- .Values.workerSecret.existingSecret | default (printf "%s-worker" (include "vlibrary.name" .)) -}}
{{- end -}}

{{/* Variables that api, worker and migration share. */}}
{{- define "vlibrary.environment" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.key }}
- name: VLIBRARY_WORKER_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ include "vlibrary.workerSecretName" . }}
      key: {{ .Values.workerSecret.key }}
{{- with .Values.objects.url }}
- name: VLIBRARY_OBJECT_STORE
  value: {{ . | quote }}
{{- end }}
{{- with .Values.objects.environment }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "vlibrary.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "vlibrary.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where data sets and checkpoints are: nothing of it with an object store. */}}
{{- define "vlibrary.dataVolume" -}}
- name: data
{{- if .Values.objects.url }}
  emptyDir: {}
{{- else }}
  persistentVolumeClaim:
    claimName: {{ include "vlibrary.name" . }}-objects
{{- end }}
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 256Mi
{{- end -}}
