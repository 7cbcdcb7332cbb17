# SPDX-License-Identifier: Apache-2.0
"""The clean image that a prediction implies for noisy latents: diffusers' `pred_original_sample`, for every scheduler.

A scheduler composes latents x of an image x0 and noise e either as `a x0 + s e` with `a^2 + s^2 = 1`, or as
`x0 + (s / a) e`.
A model predicts e, or v = a e - s x0, or x0 itself (arXiv 2202.00512).
"""

from typing import Any

import torch


def of(scheduler: Any, index: int, latents: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """Return the latents without noise.

    Args:
        scheduler: a scheduler whose timesteps are set.
        index: the index of the step.
        latents: the latents before the step.
        prediction: the prediction of the model for these latents.
    """
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        signal = scheduler.alphas_cumprod[scheduler.timesteps[index].long()] ** 0.5
    else:
        signal = (1 + sigmas[index] ** 2) ** -0.5
    noise = (1 - signal**2) ** 0.5
    # An initial noise sigma other than 1 means latents of the form x0 + (s / a) e; they are scaled to the other form.
    mixed = latents if float(scheduler.init_noise_sigma) == 1 else latents * signal
    return _clean(scheduler.config.prediction_type, mixed, prediction, float(signal), float(noise))


def _clean(
    kind: str, mixed: torch.Tensor, prediction: torch.Tensor, signal: float, noise: float
) -> torch.Tensor:
    if kind == "v_prediction":
        return signal * mixed - noise * prediction
    if kind == "epsilon":
        return (mixed - noise * prediction) / signal
    return prediction
