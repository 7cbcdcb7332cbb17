# SPDX-License-Identifier: Apache-2.0
"""`spec.networkPolicy`: whether the operator creates a NetworkPolicy for the pods of the service."""

from pydantic import Field

from sd_operator.api.base import Model


class NetworkPolicy(Model):
    """A NetworkPolicy for the pods of the service. It allows only the traffic that Ray, requests and downloads need.

    To allow more, add a second policy that selects the label sdservice.dev/name.
    """

    enabled: bool = Field(
        default=True,
        description="Create the NetworkPolicy. It takes effect only if the network of the cluster enforces NetworkPolicies.",
    )
