# SPDX-License-Identifier: Apache-2.0
"""Turns errors that a library raises during image generation into errors for clients and log lines."""

import gc
import logging
import traceback

import torch

from sd_runtime.errors import GenerationFailed, RuntimeFailure
from sd_runtime.observability import json_logs

logger = logging.getLogger(__name__)

NOT_A_NUMBER = "the image contains NaN values: the weights overflow in this precision. Operators: set model.dtype to bfloat16 or float32"
_SHOWN = 3
_OUT_OF_MEMORY = "out of memory: the device cannot hold one image of this size; request a smaller size, or use a device with more memory"


def out_of_memory(error: BaseException) -> bool:
    """Whether the error means that memory ran out, so that a smaller batch could succeed."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def free_memory() -> None:
    """Release the memory that a failed call left allocated."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def listed(names: list[str]) -> str:
    """Return the first names as text, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def one_line(error: Exception) -> str:
    """Return the type and message of an error in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def reported(error: Exception, request_id: str, *, quoted: bool = False) -> RuntimeFailure:
    """Return the error that a client may see.

    The message of a library's error is left out, since it may contain the prompt. The type of the error and the
    line that raised it go to the log, under the id of the request.

    Args:
        error: the error that was raised.
        request_id: the request of the failed image.
        quoted: include the library's message too; only for warm-up, where there is no client and so no prompt.
    """
    if isinstance(error, RuntimeFailure):
        return error
    if out_of_memory(error):
        return GenerationFailed(_OUT_OF_MEMORY)
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
    kind, extra = type(error).__name__, json_logs.of_request(request_id)
    logger.error("an image failed with %s at %s", kind, place, extra=extra)
    return GenerationFailed(f"the pipeline failed with {one_line(error) if quoted else kind}")
