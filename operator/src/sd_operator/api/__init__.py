# SPDX-License-Identifier: Apache-2.0
"""The custom resource as frozen pydantic models: the one source of the CRD and of every check."""

from sd_operator.api.head import Head, Redis, StateVolume
from sd_operator.api.image import Image, ImagePreload
from sd_operator.api.model import ModelSource
from sd_operator.api.placement import Toleration, WorkerGroup
from sd_operator.api.resource import GROUP, KIND, PLURAL, VERSION, Resource, parse, parse_live
from sd_operator.api.serving import Defaults, Limits, Replicas
from sd_operator.api.spec import Spec
from sd_operator.api.status import Condition, Status, recorded_status
from sd_operator.api.upgrade import Upgrade

__all__ = [
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "Condition",
    "Defaults",
    "Head",
    "Image",
    "ImagePreload",
    "Limits",
    "ModelSource",
    "Redis",
    "Replicas",
    "Resource",
    "Spec",
    "StateVolume",
    "Status",
    "Toleration",
    "Upgrade",
    "WorkerGroup",
    "parse",
    "parse_live",
    "recorded_status",
]
