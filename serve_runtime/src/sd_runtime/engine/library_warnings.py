# SPDX-License-Identifier: Apache-2.0
"""Collects the warnings of diffusers, transformers, peft and Python while a model loads.

Each warning is written to the service's own log, and kept for the status of the start.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import diffusers
import transformers

logger = logging.getLogger(__name__)

_LIBRARIES = ("diffusers", "transformers", "peft")
_HARMLESS = "safe to ignore"  # so the library itself says
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FURNITURE = re.compile(r"[-+|]{2,}|\|")  # transformers draws a table
_MOST = 16
_LONGEST = 300


class _Collector(logging.Handler):
    """A log handler that keeps each different warning once."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a record."""
        self.keep(record.name.partition(".")[0], record.getMessage())

    def keep(self, library: str, words: str) -> None:
        """Keep and log a message if it is new."""
        if _HARMLESS in words:
            return
        plain = _FURNITURE.sub(" ", _COLOUR.sub("", words))
        line = " ".join(f"{library}: {plain}".split())[:_LONGEST]
        if line not in self._found and len(self._found) < _MOST:
            self._found.append(line)
            logger.warning("%s", line)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the warnings within this block, one line each; the list is complete when the block ends.

    The libraries write to stderr with their own handlers and levels. Both are restored after the block. Outside such
    a block the libraries stay silent, since warnings of diffusers during generation quote the prompt.
    """
    found: list[str] = []
    collector = _Collector(found)
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [(each.level, each.handlers) for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
        each.handlers = [collector]
    try:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("default", UserWarning)
            yield found
        for warning in raised:
            if issubclass(warning.category, UserWarning):
                collector.keep("python", str(warning.message))
    finally:
        for each, (level, handlers) in zip(loggers, before, strict=True):
            each.setLevel(level)
            each.handlers = handlers


def silence() -> None:
    """Make the libraries report errors only, and show no progress bars."""
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.logging.disable_progress_bar()
