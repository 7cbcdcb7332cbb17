# SPDX-License-Identifier: Apache-2.0
from sd_runtime.engine.interface import Picture
from sd_runtime.store.result_cache import ResultCache


def pictures(size):
    return (Picture(0, b"x" * size, 1),)


def test_the_least_recently_used_goes_first():
    cache = ResultCache(30)
    for key in "abc":
        cache.put(key, pictures(10))
    assert cache.get("a") is not None
    cache.put("d", pictures(10))
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


def test_one_too_large_displaces_nothing():
    cache = ResultCache(30)
    cache.put("a", pictures(10))
    cache.put("b", pictures(31))
    assert (cache.get("a"), cache.get("b")) == (pictures(10), None)


def test_a_key_that_comes_again_is_held_once():
    cache = ResultCache(30)
    for size in (20, 25, 30):
        cache.put("a", pictures(size))
    assert cache.get("a") == pictures(30)


def test_a_smaller_bound_holds_at_once():
    cache = ResultCache(30)
    for key in "abc":
        cache.put(key, pictures(10))
    cache.resize(10)
    assert [key for key in "abc" if cache.get(key)] == ["c"]
    cache.resize(0)
    assert not cache.enabled
    assert cache.get("c") is None
