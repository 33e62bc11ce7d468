"""Rotary embedding (RoPE, arXiv:2104.09864): settings, frequencies, and the ways to stretch them over longer texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
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
                if isinstance(numbers, Sequence) and not isinstance(numbers, str):  # the rest is for `problems`
                    numbers = tuple(float(n) if isinstance(n, Real) else n for n in numbers)
                object.__setattr__(self, name, numbers)

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
        size, found = self.size(head_dim), []
        if self.rotary_dim is not None and not (is_positive_integer(size) and size <= head_dim):
            found.append(f"rope.rotary_dim is {size!r}, expected 2 to head_dim {head_dim}")
        elif size % 2:
            found.append(f"rope.rotary_dim is {size}, expected an even number: elements rotate in pairs")
        if not is_above(self.base, 1):
            found.append(f"rope.base is {self.base!r}, expected a number above 1")
        for name in ("interleaved", "truncate"):
            if not isinstance(getattr(self, name), bool):
                found.append(f"rope.{name} is {getattr(self, name)!r}, expected True or False")
        if self.scaling not in SCALINGS:
            return [*found, f"rope.scaling is {self.scaling!r}, expected one of {', '.join(SCALINGS)}"]
        if not is_above(self.factor, 0):
            found.append(f"rope.factor is {self.factor!r}, expected a positive number")
        if self.attention_factor is not None and not is_above(self.attention_factor, 0):
            found.append(f"rope.attention_factor is {self.attention_factor!r}, expected a positive number")
        return [*found, *self._scaling_problems(size // 2 if is_positive_integer(size) else None)]

    def _scaling_problems(self, pairs: int | None) -> list[str]:
        """Of what only some of the scalings read; `pairs` is None where their number is a problem itself."""
        found, context = [], self.original_context
        if self.scaling in ("llama3", "yarn", "longrope") and context is None:
            found.append(f"rope.original_context is None, which {self.scaling} scaling needs")
        elif self.scaling in ("llama3", "yarn", "longrope") and not is_above(context, 1):
            found.append(f"rope.original_context is {context!r}, expected a number above 1")
        low, high = self.low_freq_factor, self.high_freq_factor
        if self.scaling == "llama3" and not (is_above(low, 0) and is_above(high, low)):
            found.append(f"rope.low_freq_factor {low!r} must be positive and below rope.high_freq_factor {high!r}")
        slow, fast = self.beta_slow, self.beta_fast
        if self.scaling == "yarn" and not (is_above(slow, 0) and is_above(fast, slow)):
            found.append(f"rope.beta_slow {slow!r} must be positive and below rope.beta_fast {fast!r}")
        needed = {"longrope": ("factors", "long_factors"), "factors": ("factors",)}.get(self.scaling, ())
        for name in needed:
            found += _factor_problems(name, getattr(self, name), pairs, self.scaling)
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


def _factor_problems(name: str, values: object, pairs: int | None, scaling: str) -> list[str]:
    if values is None:
        return [f"rope.{name} is None, which {scaling} scaling needs"]
    if not isinstance(values, tuple):
        return [f"rope.{name} is {values!r}, expected numbers, one for each pair"]
    if pairs is not None and len(values) != pairs:
        return [f"rope.{name} has {len(values)} numbers, expected {pairs}, one for each pair"]
    wrong = [value for value in values if not is_above(value, 0)]
    return [f"rope.{name} holds {wrong[0]!r}, expected positive numbers"] if wrong else []


def is_above(value: object, least: float) -> bool:
    """Whether it is a finite number above `least`."""
    return isinstance(value, Real) and not isinstance(value, bool) and least < float(value) < math.inf


def is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
