# SPDX-License-Identifier: Apache-2.0
"""A machine that fails loses its running requests, and the client receives an error at once."""


def test_what_is_drawn_on_a_machine_that_fails_is_told_to_be_lost(
    cluster, worker, settled, ask, load, eventually
):
    """It had the only replica. What comes meanwhile waits for the next one."""
    failing = worker()
    cluster.apply()
    before = settled(1)
    with load(cluster.url, steps=5, per_second=2) as meanwhile:
        long = ask(1)
        eventually(lambda: len(meanwhile.sent) > 4)
        failing.kill()
        eventually(long.done)
        worker()
        settled(1, without=before)
    answer = long.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"]
    assert answer.headers["x-request-id"]
    assert set(meanwhile.answers) <= {200, 503}
    assert 200 in meanwhile.answers
