"""Rotary embedding (RoPE, arXiv:2104.09864): settings, frequencies, and the ways to stretch them over longer texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DEFAULT_BASE = 10000.0
SCALINGS = ("none", "linear", "llama3", "yarn", "longrope", "factors")


@dataclass(frozen=True)
class RopeConfig:
    """How the heads of a model rotate. Pair i of R rotated elements turns by base^(-2i / R) radians a position.

    Args:
        base: 10,000 unless the model says otherwise.
        rotary_dim: how many elements of each head rotate, the first ones; all when None. An even number.
        interleaved: a pair is (x[2i], x[2i + 1]); otherwise (x[i], x[i + R/2]).
        scaling: what is done to the frequencies.
            "none": nothing. "linear": all are divided by `factor`.
            "llama3": slow ones are divided by `factor`, with a smooth passage between `low_freq_factor` and
            `high_freq_factor` turns within `original_context` positions.
            "yarn" (arXiv:2309.00071): divided by `factor` below `beta_slow` turns within `original_context`, kept
            above `beta_fast`, a ramp between; `truncate` rounds the ramp's ends to whole pairs.
            "longrope" (arXiv:2402.13753): each is divided by its own of `factors`, or of `long_factors` as soon as a
            position reaches `original_context`.
            "factors": each is divided by its own of `factors` (GGUF's rope_freqs.weight).
        factor: how many times longer the text may become.
        original_context: positions the model was first trained with.
        attention_factor: cos and sin are multiplied by it. None: yarn's 0.1 ln(factor) + 1, longrope's
            sqrt(1 + ln(factor) / ln(original_context)), both from factor 1 upwards, and 1 for the others.
        factors, long_factors: R/2 numbers, a sequence or a tensor.
    """

    base: float = DEFAULT_BASE
    rotary_dim: int | None = None
    interleaved: bool = False
    scaling: str = "none"
    factor: float = 1.0
    original_context: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    factors: Sequence[float] | Tensor | None = None
    long_factors: Sequence[float] | Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("factors", "long_factors"):
            value = getattr(self, name)
            if value is not None:
                numbers = value.tolist() if isinstance(value, Tensor) else value
                object.__setattr__(self, name, tuple(float(number) for number in numbers))

    @staticmethod
    def from_parameters(
        parameters: Mapping[str, Any], head_dim: int, interleaved: bool = False, max_context: int | None = None
    ) -> RopeConfig:
        """From the `rope_parameters` of a transformers configuration (of one layer type, where they differ).

        `max_context` is the configuration's max_position_embeddings, which some models state in place of a factor.
        """
        kind = {"default": "none"}.get(parameters["rope_type"], parameters["rope_type"])
        if kind not in SCALINGS:
            raise ValueError(
                f"rope_type is {parameters['rope_type']!r}; known are default, {', '.join(SCALINGS[1:-1])}"
            )
        original, factor = parameters.get("original_max_position_embeddings"), parameters.get("factor")
        if factor is None:
            factor = max_context / original if max_context and original else 1.0
        attention_factor = parameters.get("attention_factor")
        mscale, mscale_all_dim = parameters.get("mscale"), parameters.get("mscale_all_dim")  # DeepSeek's, for yarn
        if attention_factor is None and mscale and mscale_all_dim:
            attention_factor = _yarn_attention(factor, mscale) / _yarn_attention(factor, mscale_all_dim)
        return RopeConfig(
            base=parameters.get("rope_theta", DEFAULT_BASE),
            rotary_dim=int(head_dim * parameters.get("partial_rotary_factor", 1.0)),
            interleaved=interleaved,
            scaling=kind,
            factor=factor,
            original_context=original,
            low_freq_factor=parameters.get("low_freq_factor", 1.0),
            high_freq_factor=parameters.get("high_freq_factor", 4.0),
            beta_fast=parameters.get("beta_fast") or 32.0,
            beta_slow=parameters.get("beta_slow") or 1.0,
            truncate=parameters.get("truncate", True),
            attention_factor=attention_factor,
            factors=parameters.get("short_factor"),
            long_factors=parameters.get("long_factor"),
        )

    def size(self, head_dim: int) -> int:
        """R, the rotated elements of a head."""
        return head_dim if self.rotary_dim is None else self.rotary_dim

    def problems(self, head_dim: int) -> list[str]:
        """Everything that is inconsistent, one line each; an empty list for settings that work."""
        size = self.size(head_dim)
        found = []
        if self.rotary_dim is not None and not 0 < size <= head_dim:
            found.append(f"rope.rotary_dim is {size}, expected 2 to head_dim {head_dim}")
        elif size % 2:
            found.append(f"rope.rotary_dim is {size}, expected an even number: elements rotate in pairs")
        if not 1 < self.base < math.inf:
            found.append(f"rope.base is {self.base}, expected a number above 1")
        if self.scaling not in SCALINGS:
            return [*found, f"rope.scaling is {self.scaling!r}, expected one of {', '.join(SCALINGS)}"]
        if not self.factor > 0:
            found.append(f"rope.factor is {self.factor}, expected a positive number")
        if self.attention_factor is not None and not self.attention_factor > 0:
            found.append(f"rope.attention_factor is {self.attention_factor}, expected a positive number")
        if self.scaling in ("llama3", "yarn", "longrope") and not (self.original_context or 0) > 0:
            found.append(f"rope.original_context is {self.original_context}, which {self.scaling} scaling needs")
        if self.scaling == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            found.append(
                f"rope.low_freq_factor {self.low_freq_factor} must be positive and below "
                f"rope.high_freq_factor {self.high_freq_factor}"
            )
        if self.scaling == "yarn" and not 0 < self.beta_slow < self.beta_fast:
            found.append(f"rope.beta_slow {self.beta_slow} must be positive and below rope.beta_fast {self.beta_fast}")
        needed = {"longrope": ("factors", "long_factors"), "factors": ("factors",)}.get(self.scaling, ())
        for name in needed:
            found += _factor_problems(name, getattr(self, name), size // 2, self.scaling)
        return found

    def frequencies(self, head_dim: int, long: bool = False) -> Tensor:
        """Radians a position for each pair, float64 [R / 2] on the CPU; `long` asks longrope for its long set."""
        size = self.size(head_dim)
        plain = self.base ** (-2 * torch.arange(size // 2, dtype=torch.float64, device="cpu") / size)
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "llama3":
            return plain / self._llama3_factors(plain)
        if self.scaling == "yarn":
            return plain / self.factor + (plain - plain / self.factor) * (1 - self._yarn_ramp(size))
        if self.scaling in ("longrope", "factors"):
            factors = self.long_factors if long else self.factors
            return plain / torch.tensor(factors, dtype=torch.float64, device="cpu")
        return plain

    def amplitude(self) -> float:
        """What cos and sin are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.scaling == "yarn":
            return _yarn_attention(self.factor)
        if self.scaling == "longrope" and self.factor > 1:
            assert self.original_context is not None
            return math.sqrt(1 + math.log(self.factor) / math.log(self.original_context))
        return 1.0

    def _llama3_factors(self, plain: Tensor) -> Tensor:
        """1 for short waves, `factor` for long ones, 1 / (a line from 1 / factor to 1) between."""
        assert self.original_context is not None
        turns = self.original_context * plain / (2 * math.pi)
        smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth = smooth.clamp(0, 1)
        return 1 / ((1 - smooth) / self.factor + smooth)

    def _yarn_ramp(self, size: int) -> Tensor:
        """0 for pairs that turn more than beta_fast times, 1 below beta_slow, a line over the pairs between."""
        context = self.original_context
        assert context is not None

        def pair_of(turns: float) -> float:
            return size * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(self.base))

        first, last = pair_of(self.beta_fast), pair_of(self.beta_slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        if first == last:
            last += 0.001
        return ((torch.arange(size // 2, dtype=torch.float64, device="cpu") - first) / (last - first)).clamp(0, 1)


def _yarn_attention(factor: float, mscale: float = 1.0) -> float:
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def _factor_problems(name: str, values: Sequence[float] | None, pairs: int, scaling: str) -> list[str]:
    if values is None:
        return [f"rope.{name} is None, which {scaling} scaling needs"]
    if len(values) != pairs:
        return [f"rope.{name} has {len(values)} numbers, expected {pairs}, one for each pair"]
    if not all(value > 0 for value in values):
        return [f"rope.{name} holds {min(values)}, expected positive numbers"]
    return []
