-- SPDX-License-Identifier: Apache-2.0
-- Health of a StableDiffusionService for Argo CD; docs/gitops.md describes how to install it.
-- Degraded means that a person has to act. Progressing means that time or a node autoscaler repairs the state.
local broken = {
  ApplicationFailed = true, ApplicationUnhealthy = true, ContainerRefused = true, CrashLooping = true,
  Degraded = true, ImagePullFailed = true, ModelForbidden = true, ModelInvalid = true, ModelNotFound = true,
  ModelUnavailable = true, PodsRefused = true, QuotaExceeded = true,
}

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not processed the latest change yet." }
end

local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end

local ready, accepted, suspended = found.Ready, found.Accepted, found.Suspended
if accepted and accepted.status == "False" then
  return { status = "Degraded", message = accepted.reason .. ": " .. accepted.message }
end
if suspended and suspended.status == "True" then
  return { status = "Suspended", message = suspended.message }
end
if ready == nil then
  return { status = "Progressing", message = "The operator has not reported a status yet." }
end
local message = ready.reason .. ": " .. ready.message
if broken[ready.reason] then
  return { status = "Degraded", message = message }
end
if ready.status == "True" then
  return { status = "Healthy", message = message }
end
return { status = "Progressing", message = message }
