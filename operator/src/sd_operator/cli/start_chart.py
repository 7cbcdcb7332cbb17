# SPDX-License-Identifier: Apache-2.0
"""Draws the start of a worker as text: one line per phase, and each bar starts where the previous bar ends."""

from collections.abc import Iterator

from sd_operator.cli.explain import StartBar

_COLUMNS = 40


def chart(start: StartBar) -> Iterator[str]:
    """Lines with phase, bar and seconds. The phase that runs now is marked."""
    total = sum(start.seconds.values()) or 1.0
    names = max(len(phase) for phase in start.seconds)
    gone = 0.0
    for phase, seconds in start.seconds.items():
        # At least one column, so that a very short phase is visible too.
        begin = min(_COLUMNS - 1, round(_COLUMNS * gone / total))
        length = max(1, round(_COLUMNS * (gone + seconds) / total) - begin)
        bar = " " * begin + ("▒" if phase == start.running else "█") * length
        mark = "  ← now" if phase == start.running else ""
        yield f"  {phase:<{names}}  {bar:<{_COLUMNS}}  {seconds:6.1f} s{mark}"
        gone += seconds
