# SPDX-License-Identifier: Apache-2.0
"""The bundled model, loaded once."""

import pytest

from sd_runtime.config import ModelConfig
from sd_runtime.diffusion import load


@pytest.fixture(scope="session")
def model():
    return load(ModelConfig(uri="bundled://shapes"))
