{{/* SPDX-License-Identifier: Apache-2.0

The settings of sd_operator.settings. tests/chart/test_settings.py checks that both lists agree. */}}

{{- define "sdo.env" -}}
- name: SDSERVICE_NAMESPACE
  valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}
- name: SDSERVICE_POD_NAME
  valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
- {name: SDSERVICE_LEADER_ELECTION, value: {{ .Values.leaderElection | quote }}}
- {name: SDSERVICE_WATCH_NAMESPACES, value: {{ join "," (uniq .Values.watchNamespaces) | quote }}}
- {name: SDSERVICE_WATCH_OWN_NAMESPACE, value: {{ .Values.watchOwnNamespace | quote }}}
- {name: SDSERVICE_CLUSTER_READS, value: {{ or .Values.rbac.clusterReads (not (include "sdo.namespaces" . | fromJsonArray)) | quote }}}
- {name: SDSERVICE_RUNTIME_REPOSITORY, value: {{ .Values.runtime.repository | quote }}}
- {name: SDSERVICE_RUNTIME_TAG, value: {{ .Values.runtime.tag | default .Chart.AppVersion | quote }}}
- {name: SDSERVICE_PRELOAD_PRIORITY_CLASS, value: {{ .Values.preload.priorityClassName | quote }}}
- {name: SDSERVICE_GPU_NODE_LABELS, value: {{ join "," (uniq .Values.preload.gpuNodeLabels) | quote }}}
- {name: SDSERVICE_NODE_STATUS_MAX_IMAGES, value: {{ .Values.preload.nodeStatusMaxImages | quote }}}
- {name: SDSERVICE_WARM_PRIORITY_CLASS, value: {{ .Values.warm.priorityClass.name | quote }}}
- {name: SDSERVICE_WARM_IMAGE, value: {{ .Values.warm.image | quote }}}
- {name: SDSERVICE_KUBERAY_NAMESPACE, value: {{ .Values.ray.kuberayNamespace | quote }}}
- {name: SDSERVICE_API_SERVER_PORTS, value: {{ join "," .Values.apiServerPorts | quote }}}
- {name: SDSERVICE_NODE_CACHE_DIRECTORY, value: {{ .Values.nodeCacheDirectory | quote }}}
- {name: SDSERVICE_WORKERS, value: {{ .Values.reconciling.workers | quote }}}
- {name: SDSERVICE_ROLLOUT_AT_ONCE, value: {{ .Values.reconciling.rolloutAtOnce | quote }}}
- {name: SDSERVICE_PASSES_PER_SECOND, value: {{ .Values.reconciling.passesPerSecond | quote }}}
- {name: SDSERVICE_RESYNC_SECONDS, value: {{ .Values.reconciling.resyncSeconds | quote }}}
- {name: SDSERVICE_FULL_RESYNC_SECONDS, value: {{ .Values.reconciling.fullResyncSeconds | quote }}}
- {name: SDSERVICE_REQUEST_TIMEOUT_SECONDS, value: {{ .Values.reconciling.requestTimeoutSeconds | quote }}}
- {name: SDSERVICE_RETRY_BASE_SECONDS, value: {{ .Values.reconciling.retryBaseSeconds | quote }}}
- {name: SDSERVICE_RETRY_CAP_SECONDS, value: {{ .Values.reconciling.retryCapSeconds | quote }}}
{{- if .Values.ray.throughApiServer }}
- {name: SDSERVICE_DASHBOARD_URL, value: ""}
{{- end }}
- {name: SDSERVICE_PROBE_PORT, value: "8080"}
- {name: SDSERVICE_METRICS_PORT, value: "8081"}
- {name: SDSERVICE_LOG_FORMAT, value: {{ .Values.logFormat | quote }}}
{{- end }}
