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

{{/* What is of the whole cluster carries the namespace in its name: two installations must not meet. */}}
{{- define "sdo.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "sdo.fullname" .) }}
{{- end }}

{{- define "sdo.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Not the operator's: services let in the operator's pods, and its own policy is not for this one. */}}
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

{{/* The namespaces with a Role in each, as JSON; none where a ClusterRole serves all. */}}
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

{{/* What Pod Security Standards `restricted` want, and a file system that nobody writes to. */}}
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
