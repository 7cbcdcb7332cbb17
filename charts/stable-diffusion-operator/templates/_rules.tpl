{{/* SPDX-License-Identifier: Apache-2.0

Permissions of the operator in a watched namespace. tests/cluster/test_permissions.py compares these rules with the audit log of
the API server: every permission is used, and none is missing. */}}

{{- define "sdo.rules.namespace" -}}
- apiGroups: [sdservice.dev]
  resources: [stablediffusionservices]
  verbs: [get, list, watch]
- apiGroups: [sdservice.dev]
  resources: [stablediffusionservices/status]
  verbs: [patch]
- apiGroups: [ray.io]
  resources: [rayservices]
  verbs: [get, list, watch, create, patch]
# KubeRay creates RayClusters. The operator patches the bounds and tolerations of running clusters. It deletes a cluster that was
# replaced before it served, or whose capacity the next cluster needs.
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [list, watch, patch, delete]
# Preload pods, and placeholder pods for spare workers.
- apiGroups: [apps]
  resources: [daemonsets, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# The Secret with Ray's token. The operator reads it by name and creates it once. It never lists or changes Secrets.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
# Only Events have the reason why pods were not created.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# The address of the Gateway of an Incremental upgrade.
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get, list, watch]
{{- if .Values.ray.throughApiServer }}
- apiGroups: [""]
  resources: [services/proxy]
  verbs: [get]
{{- end }}
{{- end }}

{{- define "sdo.rules.cluster" -}}
# The images on each node.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
# The operator detects a later installation of KubeRay at once.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- if include "sdo.namespaces" . | fromJsonArray }}
# kopf checks that the listed namespaces exist.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end }}
