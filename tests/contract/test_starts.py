# SPDX-License-Identifier: Apache-2.0
"""The operator can read the start reports of replicas: both sides use the same names and format."""

import json
from dataclasses import asdict
from typing import get_args

from sd_operator.observe.cold_start import RUNTIME_PHASES
from sd_operator.ray.replica_starts import IMPORT, read_starts
from sd_runtime.startup import Phase, Startup

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_both_sides_have_the_same_phases_in_the_same_order():
    assert (IMPORT, *RUNTIME_PHASES) == get_args(Phase)


def test_a_report_is_read_as_it_was_told():
    told, now = [], [0.0]
    startup = Startup(told.append, lambda: now[0], began=1000.0, ray="2.60.0")
    for phase in get_args(Phase):
        if phase == "pipeline":
            startup.fetched(COMMIT)
        startup.enter(phase)
        now[0] += 1.5
    startup.done()
    startup.drew(3.0)
    answer = json.loads(json.dumps({"starts": {str(n): asdict(each) for n, each in enumerate(told)}}))
    read = read_starts(answer)
    assert len(read) == len(told)
    for number, report in enumerate(told):
        found = read[str(number)]
        assert (found.began.timestamp(), found.since.timestamp()) == (report.began, report.since)
        assert (found.seconds, found.phase) == (report.seconds, report.phase)
        assert (found.ray, found.revision) == (report.ray, report.revision)
    assert [read[str(number)].revision for number in (1, 2)] == ["", COMMIT]
    assert {each.ray for each in read.values()} == {"2.60.0"}
    assert read["6"].is_complete
    assert not read["5"].is_complete
