# SPDX-License-Identifier: Apache-2.0
"""The choice of the token if two writers create the Secret at the same moment."""

import base64

import pytest

from sd_operator.errors import ClusterUnavailable, NameConflict
from sd_operator.reconcile.ray_token import ensure_token


class Secrets:
    """An API server whose Secret somebody else creates at the same moment."""

    def __init__(self, stored):
        self.stored = stored

    async def create(self, body, manager):
        return None

    async def get(self, kind, namespace, name):
        return self.stored


def stored(uid):
    controller = {"uid": uid, "controller": True}
    data = {"auth_token": base64.b64encode(b"theirs").decode()}
    return {"metadata": {"name": "imagine-ray-token", "ownerReferences": [controller]}, "data": data}


def ensured(resource, secret):
    return ensure_token(Secrets(secret), resource(), None, lambda: "drawn")


async def test_the_token_that_another_writer_stored_meanwhile_is_the_token(resource):
    assert await ensured(resource, stored(resource().uid)) == "theirs"


async def test_a_secret_that_appeared_meanwhile_may_belong_to_another(resource):
    with pytest.raises(NameConflict):
        await ensured(resource, stored("uid-of-another"))


async def test_a_secret_that_came_and_went_is_tried_again(resource):
    with pytest.raises(ClusterUnavailable):
        await ensured(resource, None)
