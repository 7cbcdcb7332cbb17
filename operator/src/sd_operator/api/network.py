# SPDX-License-Identifier: Apache-2.0
"""`spec.networkPolicy`: whether the pods of the service are closed to what they do not need."""

from pydantic import Field

from sd_operator.api.base import Model


class NetworkPolicy(Model):
    """A NetworkPolicy of the pods of the service: nothing goes in or out but what Ray, requests and weights need.

    Policies add up: a further one that selects the label sdservice.dev/name opens what this one leaves closed.
    """

    enabled: bool = Field(
        default=True,
        description="Make it. It has an effect where the cluster's network enforces NetworkPolicies.",
    )
