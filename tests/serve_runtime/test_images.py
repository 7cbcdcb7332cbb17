# SPDX-License-Identifier: Apache-2.0
import io

from PIL import Image

from sd_runtime.images import parameters, png


def test_parameters_survive_in_the_file():
    given = {"prompt": "ein roter Kreis 🔴", "seed": 2**53 - 1}
    data = png(Image.new("RGB", (64, 64), "red"), given)
    assert parameters(data) == given
    assert Image.open(io.BytesIO(data)).getpixel((1, 1)) == (255, 0, 0)
