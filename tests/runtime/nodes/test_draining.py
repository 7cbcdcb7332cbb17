# SPDX-License-Identifier: Apache-2.0
"""Workers and replicas that are being removed finish their running requests."""

import pytest


def test_replicas_that_go_end_what_lasts_longer_than_ray_waits(cluster, worker, settled, ask):
    """Another model, on fewer replicas, when all of them have just begun."""
    for _ in range(3):
        worker()
    cluster.apply(replicas=2)
    before = settled(2)
    requests = [ask(seed) for seed in range(8)]
    cluster.apply(replicas=1, side=128)
    settled(1, without=before)
    assert {each.result().status_code for each in requests} == {200}


@pytest.mark.parametrize("place", ["beside it", "later"])
def test_a_worker_that_is_deleted_ends_what_it_has_begun(
    cluster, worker, settled, ask, load, eventually, request, place
):
    """And is gone by itself, its replica drawing elsewhere; a head that is deleted with it goes after it."""
    going = worker()
    cluster.apply()
    before = settled(1)
    if place == "beside it":
        worker()
    with load(cluster.url, steps=5, per_second=2) as meanwhile:
        long = ask(1)
        eventually(lambda: len(meanwhile.sent) > 4)
        going.delete()
        head = cluster.host.before_the_head_goes()
        request.addfinalizer(head.kill)
        eventually(lambda: head.poll() is not None)
        assert (long.done(), head.returncode) == (True, 0)
        if place == "later":
            eventually(going.gone)
            worker()
        settled(1, without=before)
        eventually(going.gone)
    assert long.result().status_code == 200
    assert set(meanwhile.answers) == {200}
