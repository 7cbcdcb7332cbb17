# SPDX-License-Identifier: Apache-2.0
"""How much of a prompt a pipeline reads that draws by its own `__call__`: it cuts the rest off by itself."""

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import CLIPTokenizer, CLIPTokenizerFast

from sd_runtime.engine.interface import ImageRequest, RequestWarning
from sd_runtime.engine.prompts import request_warnings

_LIMIT = "max_sequence_length"  # what pipelines call the limit of tokenizers other than CLIP's


@dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer of the pipeline, and the most tokens that the pipeline takes of it, special ones included."""

    name: str
    tokenizer: Any
    limit: int

    def count(self, text: str) -> int:
        return len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])


class PromptLimits:
    """The limits of one pipeline.

    Its tokenizers are copied: fast ones fail where two threads use one, and the pipeline's own are in use elsewhere.
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
        """A warning for each text and tokenizer that reads a part of it only."""
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
