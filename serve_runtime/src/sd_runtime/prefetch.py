# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_runtime.prefetch CONFIG`: download the weights of a RuntimeConfig (JSON) into the cache.

A preload pod runs this command on a node before a worker starts there. If the weights cannot be fetched, the command
prints one line and exits with 1, so that the kubelet restarts it with back-off.
"""

import logging
import sys

from pydantic import ValidationError

from sd_runtime import weights
from sd_runtime.config import RuntimeConfig
from sd_runtime.errors import ConfigError, ModelUnavailable

logger = logging.getLogger("sd_runtime.prefetch")


def main(arguments: list[str]) -> int:
    """Fetch the model and its LoRAs. Return the exit code."""
    if len(arguments) != 1:
        logger.error("usage: python -m sd_runtime.prefetch CONFIG")
        return 2
    try:
        config = RuntimeConfig.model_validate_json(arguments[0])
        weights.fetch(config.model)
        for lora in config.loras:
            weights.fetch_lora(lora)
    except (ValidationError, ConfigError, ModelUnavailable) as error:
        # The line starts with the class name, because the operator reads it from there.
        logger.error("%s: %s", type(error).__name__, " ".join(str(error).split()))  # noqa: TRY400
        return 1
    logger.info("the weights of %s are in the cache", config.model.uri)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
