# SPDX-License-Identifier: Apache-2.0
from sd_operator.echoes import Echoes


def version(uid, number):
    return {"uid": uid, "resourceVersion": str(number)}


def test_only_the_version_that_was_written_last_is_an_echo():
    echoes = Echoes()
    assert not echoes.is_one(version("a", 1))
    echoes.wrote(version("a", 1))
    echoes.wrote(version("b", 2))
    assert echoes.is_one(version("a", 1))
    echoes.wrote(version("a", 3))
    assert not echoes.is_one(version("a", 1)), "something was between the two writes"
    assert not echoes.is_one(version("a", 4)), "someone else wrote"
    assert not echoes.is_one(version("b", 3))
    assert echoes.is_one(version("b", 2))


def test_few_are_remembered():
    echoes = Echoes(most=2)
    for uid in ("a", "b", "a", "c"):
        echoes.wrote(version(uid, 1))
    assert [echoes.is_one(version(uid, 1)) for uid in "abc"] == [True, False, True]
