# SPDX-License-Identifier: Apache-2.0
"""A reverse proxy in front of the API server that injects, on request, the faults of networks and API servers."""

from sd_testkit.fault_proxy.faults import (
    Cut,
    Delay,
    Drop,
    Edit,
    Fault,
    Forward,
    Hold,
    Lines,
    Relay,
    Replay,
    Reply,
    Twice,
)
from sd_testkit.fault_proxy.journal import Entry, Journal
from sd_testkit.fault_proxy.proxy import FaultProxy
from sd_testkit.fault_proxy.request import WRITES, ApiRequest
from sd_testkit.fault_proxy.rules import Match, Rule

__all__ = [
    "WRITES",
    "ApiRequest",
    "Cut",
    "Delay",
    "Drop",
    "Edit",
    "Entry",
    "Fault",
    "FaultProxy",
    "Forward",
    "Hold",
    "Journal",
    "Lines",
    "Match",
    "Relay",
    "Replay",
    "Reply",
    "Rule",
    "Twice",
]
