{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "sdo.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Names of cluster-wide objects contain the namespace, so that two installations do not conflict. */}}
{{- define "sdo.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "sdo.fullname" .) }}
{{- end }}

{{- define "sdo.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The self-test has its own labels: services admit pods with the operator's labels, and the operator's NetworkPolicy must
     not select this pod. */}}
{{- define "sdo.selfTest" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-self-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sdo.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{ include "sdo.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sdo.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "sdo.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "sdo.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The watched namespaces, each with a Role, as JSON. The list is empty if a ClusterRole covers all namespaces. */}}
{{- define "sdo.namespaces" -}}
{{- if .Values.watchOwnNamespace -}}
{{ list .Release.Namespace | toJson }}
{{- else -}}
{{ .Values.watchNamespaces | uniq | toJson }}
{{- end -}}
{{- end }}

{{- define "sdo.testNamespace" -}}
{{- .Values.tests.namespace | default (first (include "sdo.namespaces" . | fromJsonArray) | default .Release.Namespace) -}}
{{- end }}

{{/* Pod Security Standards `restricted`, and a read-only root file system. */}}
{{- define "sdo.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- define "sdo.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
