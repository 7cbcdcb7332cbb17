{{/* SPDX-License-Identifier: Apache-2.0

What the operator does in a namespace that it serves. tests/cluster/test_permissions.py holds these rules to what the API
server's audit log says was asked for: nothing is missing, nothing is granted in vain. */}}

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
# KubeRay makes them. The operator patches bounds and tolerations of running ones, and deletes one that was replaced before it
# ever served, or whose place the next one needs.
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [list, watch, patch, delete]
# Preload pods, and placeholders of spare workers.
- apiGroups: [apps]
  resources: [daemonsets, deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Ray's token: read by its name, created once, never listed and never changed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
# Why pods are not made is told by Events only.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# The address of an upgrade in steps.
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
# Which nodes hold which images.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
# So that a KubeRay installed later is noticed at once.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- if include "sdo.namespaces" . | fromJsonArray }}
# kopf looks whether the listed ones exist.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end }}
