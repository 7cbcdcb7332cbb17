# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.observe.gateway import url


@pytest.mark.parametrize(
    ("addresses", "listeners", "expected"),
    [
        ([{"type": "IPAddress", "value": "192.0.2.7"}], [{"port": 80}], "http://192.0.2.7"),
        ([{"type": "Hostname", "value": "lb.example.org"}], [{"port": 8080}], "http://lb.example.org:8080"),
        ([{"value": "2001:db8::7"}, {"value": "192.0.2.7"}], [{"port": 80}], "http://[2001:db8::7]"),
        ([], [{"port": 80}], ""),
        ([{"value": "192.0.2.7"}], [], ""),
    ],
    ids=["address", "host and port", "IPv6", "no address yet", "no listener"],
)
def test_requests_go_to_the_first_address(addresses, listeners, expected):
    assert url({"spec": {"listeners": listeners}, "status": {"addresses": addresses}}) == expected


def test_a_gateway_that_no_controller_has_seen_has_no_address():
    assert url({"spec": {"listeners": [{"port": 80}]}}) == ""
