# SPDX-License-Identifier: Apache-2.0
"""What diffusers, transformers, peft and Python warn of while a model loads: logged as our own records, and kept."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import diffusers
import transformers

logger = logging.getLogger(__name__)

_LIBRARIES = ("diffusers", "transformers", "peft")
_HARMLESS = "safe to ignore"  # by the library's own words
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FURNITURE = re.compile(r"[-+|]{2,}|\|")  # transformers draws a table
_MOST = 16
_LONGEST = 300


class _Collector(logging.Handler):
    """Keeps each different warning once."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a record."""
        self.keep(record.name.partition(".")[0], record.getMessage())

    def keep(self, library: str, words: str) -> None:
        """Keep a message and log it, if it is new."""
        if _HARMLESS in words:
            return
        plain = _FURNITURE.sub(" ", _COLOUR.sub("", words))
        line = " ".join(f"{library}: {plain}".split())[:_LONGEST]
        if line not in self._found and len(self._found) < _MOST:
            self._found.append(line)
            logger.warning("%s", line)


@contextmanager
def collected() -> Iterator[list[str]]:
    """The warnings of a block, one line each; complete when the block ends.

    The libraries write to stderr with handlers of their own, at levels of their own; both are put back afterwards.
    Outside such a block the libraries stay silent: what diffusers warns of while it generates quotes the prompt.
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
    """Let the libraries report errors only, and draw no progress bars."""
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.logging.disable_progress_bar()
