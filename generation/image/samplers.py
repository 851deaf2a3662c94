"""Samplers by name: diffusers' schedulers, configured for what a model predicts."""

from __future__ import annotations

import copy
import inspect
import math
import re
from typing import Any

import torch
from torch import Tensor

from generation.errors import InvalidRequestError
from generation.image.family import Prediction

_NOISE_CLASSES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpm++_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
_FLOW_CLASSES = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "dpm++_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "FlowMatchLCMScheduler",
}
_ALIASES = {
    "dpmpp2m": "dpm++_2m",
    "dpm++2m": "dpm++_2m",
    "eulera": "euler_a",
    "eulerancestral": "euler_a",
    "flowmatcheuler": "euler",
    "floweuler": "euler",
}
#: Every sampler that some model takes.
SAMPLERS = tuple(_NOISE_CLASSES)


def samplers_for(prediction: Prediction) -> tuple[str, ...]:
    """Names of the samplers that suit a model."""
    return tuple(_FLOW_CLASSES if prediction == "flow_prediction" else _NOISE_CLASSES)


def canonical(name: str) -> str:
    """The name of a sampler however it is written: ``DPM++ 2M``, ``dpmpp_2m`` and ``dpm++_2m`` are one.

    Raises:
        InvalidRequestError: There is no such sampler.
    """
    compact = re.sub(r"[^a-z0-9+]", "", name.lower())
    known = {re.sub(r"[^a-z0-9+]", "", sampler): sampler for sampler in SAMPLERS} | _ALIASES
    if compact not in known:
        raise InvalidRequestError(f"There is no sampler {name[:40]!r}. Choose one of {', '.join(SAMPLERS)}.")
    return known[compact]


def prediction_of(scheduler: Any) -> Prediction:
    """What the model that a scheduler was made for predicts."""
    if "FlowMatch" in type(scheduler).__name__:
        return "flow_prediction"
    prediction: Prediction = scheduler.config.get("prediction_type", "epsilon")
    return prediction


class Samplers:
    """Makes a fresh scheduler object for each picture: its state belongs to that picture alone.

    Args:
        own: The model's own scheduler.
        prediction: What the model predicts.

    Source: DDIM (Song et al., 2021), DDPM (Ho et al., 2020), Euler ancestral (Karras et al., "Elucidating the Design
    Space", 2022), DPM++ 2M (Lu et al., "DPM-Solver++", 2022), UniPC (Zhao et al., 2023), LCM (Luo et al., "Latent
    Consistency Models", 2023), Euler for rectified flow (Esser et al., 2024).
    """

    def __init__(self, own: Any, prediction: Prediction) -> None:
        self._own, self._prediction = own, prediction
        self._made: dict[str, Any] = {}

    def new(self, name: str | None) -> Any:
        """A scheduler for one picture.

        Args:
            name: A sampler; None takes the model's own.

        Raises:
            InvalidRequestError: There is no such sampler, or it does not suit the model.
        """
        if name is None:
            return copy.deepcopy(self._own)
        sampler = canonical(name)
        if sampler not in self._made:
            self._made[sampler] = self._configured(sampler)
        return copy.deepcopy(self._made[sampler])

    def _configured(self, sampler: str) -> Any:
        suitable = samplers_for(self._prediction)
        if sampler not in suitable:
            raise InvalidRequestError(
                f"The sampler {sampler} does not suit this model, which predicts a flow. "
                f"Choose one of {', '.join(suitable)}."
            )
        flow = self._prediction == "flow_prediction"
        name = (_FLOW_CLASSES if flow else _NOISE_CLASSES)[sampler]
        if type(self._own).__name__ == name:
            return self._own
        return _scheduler_class(name).from_config(self._own.config, **_extra(sampler, self._own, flow=flow))


def _scheduler_class(name: str) -> Any:
    import diffusers  # its attributes are imported when they are asked for

    return getattr(diffusers, name)


def _extra(sampler: str, own: Any, *, flow: bool) -> dict[str, Any]:
    """What has to be said beside the model's own configuration."""
    if not flow:
        return {"algorithm_type": "dpmsolver++", "solver_order": 2} if sampler == "dpm++_2m" else {}
    if sampler in {"dpm++_2m", "unipc"}:
        return {
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": own.config.get("shift", 1.0) or 1.0,
        }
    return {}


def step_arguments(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """Keyword arguments of a scheduler's ``step`` beside the prediction, the timestep and the latents."""
    accepted = inspect.signature(scheduler.step).parameters
    return {"generator": generator} if "generator" in accepted else {}


def predicted_clean(
    scheduler: Any, prediction: Prediction, latents: Tensor, timestep: Tensor, output: Tensor
) -> Tensor:
    """What a picture's latents would be if the prediction were right to the end: for previews.

    Args:
        scheduler: Whose noise levels count.
        prediction: What ``output`` is.
        latents: As the denoiser saw them.
        timestep: At which it saw them.
        output: What it predicted, after guidance.
    """
    if prediction == "sample":
        return output
    if prediction == "flow_prediction":
        share: float = float(timestep) / scheduler.config.num_train_timesteps
        return latents - output * share
    kept = float(scheduler.alphas_cumprod[min(round(float(timestep)), len(scheduler.alphas_cumprod) - 1)])
    signal, noise = math.sqrt(max(kept, 1e-6)), math.sqrt(1 - kept)
    if prediction == "v_prediction":
        return latents * signal - output * noise
    clean: Tensor = (latents - output * noise) / signal
    return clean
