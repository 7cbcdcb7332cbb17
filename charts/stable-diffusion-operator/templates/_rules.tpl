{{/* SPDX-License-Identifier: Apache-2.0

What the operator may do in a namespace that it serves. tests/cluster/test_permissions.py compares these rules with the
requests in the API server's audit log: no rule is missing, and none is unused. */}}

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
# KubeRay creates RayClusters. The operator patches bounds and tolerations of running ones. It deletes a cluster that was replaced
# before it ever served, or whose room the next cluster needs.
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [list, watch, patch, delete]
# Preload pods, and placeholder pods that keep room for spare workers.
- apiGroups: [apps]
  resources: [daemonsets, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Ray's token: the operator reads it by name and creates it once. It never lists or changes Secrets.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
# Only Events report why pods are not created.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# The Gateway address of an Incremental upgrade.
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
# To see which nodes have which container images.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
# To notice a KubeRay that is installed later at once.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- if include "sdo.namespaces" . | fromJsonArray }}
# kopf checks whether the listed namespaces exist.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end }}
