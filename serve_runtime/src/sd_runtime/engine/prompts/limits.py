# SPDX-License-Identifier: Apache-2.0
"""Prompt limits of a pipeline that generates by its own `__call__`: such a pipeline truncates longer prompts itself."""

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import CLIPTokenizer, CLIPTokenizerFast

from sd_runtime.engine.interface import ImageRequest, RequestWarning
from sd_runtime.engine.prompts import request_warnings

_LIMIT = "max_sequence_length"  # the pipelines' parameter for the limit of tokenizers other than CLIP's


@dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer of the pipeline, and the maximum number of tokens that the pipeline reads, special ones included."""

    name: str
    tokenizer: Any
    limit: int

    def count(self, text: str) -> int:
        return len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])


class PromptLimits:
    """The prompt limits of one pipeline.

    Its tokenizers are copied. A fast tokenizer fails when two threads use it, and the pipeline itself uses its own.
    """

    def __init__(self, pipeline: Any) -> None:
        parameter = inspect.signature(type(pipeline).__call__).parameters.get(_LIMIT)
        usual = parameter.default if parameter is not None and isinstance(parameter.default, int) else None
        self._tokenizers = [
            _Tokenizer(name, copy.deepcopy(found), _limit(found, usual))
            for name, found in pipeline.components.items()
            if name.startswith("tokenizer") and found is not None
        ]

    def warnings(self, request: ImageRequest) -> Iterator[RequestWarning]:
        """Yield a warning for each text of which a tokenizer reads only a part."""
        for name, text in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt)):
            for each in self._tokenizers:
                tokens = each.count(text)
                if tokens > each.limit:
                    yield request_warnings.cut_short(name, tokens, each.limit, each.name)


def _limit(tokenizer: Any, usual: int | None) -> int:
    own = int(tokenizer.model_max_length)
    if usual is None or isinstance(tokenizer, CLIPTokenizer | CLIPTokenizerFast):
        return own
    return usual
