# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_runtime.prefetch CONFIG`: bring the weights of a RuntimeConfig (JSON) into the cache, and end.

Run on a node before the worker is there. Exits with 1 and one line where they cannot be had, so that the kubelet tries
again with its back-off.
"""

import logging
import sys

from pydantic import ValidationError

from sd_runtime import weights
from sd_runtime.config import RuntimeConfig
from sd_runtime.errors import ConfigError, ModelUnavailable

logger = logging.getLogger("sd_runtime.prefetch")


def main(arguments: list[str]) -> int:
    """Fetch model and LoRAs; returns the exit code."""
    if len(arguments) != 1:
        logger.error("usage: python -m sd_runtime.prefetch CONFIG")
        return 2
    try:
        config = RuntimeConfig.model_validate_json(arguments[0])
        weights.fetch(config.model)
        for lora in config.loras:
            weights.fetch_lora(lora)
    except (ValidationError, ConfigError, ModelUnavailable) as error:
        # With its class, as the operator reads it; the message says the rest.
        logger.error("%s: %s", type(error).__name__, " ".join(str(error).split()))  # noqa: TRY400
        return 1
    logger.info("the weights of %s are in the cache", config.model.uri)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
