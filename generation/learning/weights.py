"""Weights in three copies, and the two optimisers that move them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class TrainedWeights(Generic[Model]):
    """A model as float32 master, as working copy that computes, and as running average that is kept.

    Casting inside every layer, as autocast does, took 16% of a training step on a CPU; here the cast is once a step.

    Args:
        model: Becomes the master, where it is.
        working_dtype: What the forward and backward passes compute in.
        average_decay: Largest share that the average keeps at a step; smaller in the beginning.

    Source: Micikevicius et al., "Mixed Precision Training", 2018 (float32 masters).
    """

    def __init__(self, model: Model, working_dtype: torch.dtype, average_decay: float) -> None:
        self.master = model
        # The plain method: diffusers' own warns of layers to keep in float32, and there are none.
        self.working: Model = nn.Module.to(copy.deepcopy(model), working_dtype)
        self.average: Model = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        self._average_decay = average_decay

    @torch.no_grad()
    def take_gradients(self, max_norm: float) -> float:
        """Move the working copy's gradients to the master, clipped to a total norm; return the norm before."""
        for master, working in zip(self.master.parameters(), self.working.parameters(), strict=True):
            master.grad = None if working.grad is None else working.grad.float()
            working.grad = None
        return float(torch.nn.utils.clip_grad_norm_(self.master.parameters(), max_norm))

    @torch.no_grad()
    def publish(self, step: int) -> None:
        """Copy the master's new values to the working copy and blend them into the average, after step ``step``."""
        keep = min(self._average_decay, step / (step + 20))
        for master, working, average in zip(
            self.master.parameters(), self.working.parameters(), self.average.parameters(), strict=True
        ):
            working.copy_(master)
            average.lerp_(master, 1 - keep)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on: the working copy follows from the master."""
        return {"master": self.master.state_dict(), "average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.master.load_state_dict(state["master"])
        self.average.load_state_dict(state["average"])
        with torch.no_grad():
            for master, working in zip(self.master.parameters(), self.working.parameters(), strict=True):
                working.copy_(master)


@dataclass(frozen=True, slots=True)
class LearningRates:
    """Learning rates of the two optimisers before the schedule's factor.

    Args:
        muon: Of the matrices inside blocks.
        adamw: Of everything else.
        weight_decay: Of both.
    """

    muon: float = 4e-3
    adamw: float = 1.5e-3
    weight_decay: float = 0.01


class Optimiser:
    """Muon for the matrices inside transformer blocks, AdamW for embeddings, norms and projections.

    Args:
        model: Its ``Block`` matrices are recognised by being two-dimensional inside an ``nn.Sequential`` of blocks.
        rates: Learning rates.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is
    Scalable for LLM Training", 2025 (update size matched to AdamW's).
    """

    def __init__(self, model: nn.Module, rates: LearningRates) -> None:
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in model.named_parameters():
            inside_block = any(part.isdigit() for part in name.split(".")[:2])
            if parameter.requires_grad:
                (matrices if inside_block and parameter.ndim == 2 else others).append(parameter)
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            parts.append(torch.optim.Muon(matrices, rates.muon, rates.weight_decay, adjust_lr_fn="match_rms_adamw"))
        parts.append(
            torch.optim.AdamW(others, rates.adamw, betas=(0.9, 0.95), weight_decay=rates.weight_decay, fused=True)
        )
        self._parts = tuple(parts)
        self._rates = (rates.muon, rates.adamw)[-len(parts) :]

    def step(self, rate_factor: float) -> None:
        """Move the parameters by their gradients, at the given share of the learning rates."""
        for part, rate in zip(self._parts, self._rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * rate_factor
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Momenta and step counts of both."""
        return {str(index): part.state_dict() for index, part in enumerate(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for index, part in enumerate(self._parts):
            part.load_state_dict(state[str(index)])
