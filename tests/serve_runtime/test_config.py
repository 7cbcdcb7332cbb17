# SPDX-License-Identifier: Apache-2.0
import pytest
from pydantic import ValidationError

from sd_runtime.config import LiveConfig, RuntimeConfig


def test_unknown_keys_are_refused_at_every_level():
    for broken in ({"limits": {"max_sides": 1}}, {"batchings": {}}, {"defaults": {"size": 64}}):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            LiveConfig.model_validate(broken)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        RuntimeConfig.model_validate({"model": {"uri": "bundled://shapes", "torch_dtype": "float16"}})


def test_empty_live_config_is_the_defaults():
    assert LiveConfig.model_validate({}) == LiveConfig()
