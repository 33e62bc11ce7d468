"""Settings of a multi-query attention layer."""

from __future__ import annotations

from dataclasses import dataclass

from rocforge_ops.rope import RopeConfig, is_above, is_positive_integer


@dataclass(frozen=True)
class MultiQueryConfig:
    """What `rf.nn.MultiQueryAttention` computes. Nothing is checked before `validate()`.

    Args:
        num_query_heads: Hq.
        num_kv_heads: Hkv, which divides Hq: 1 is multi-query attention, Hq is multi-head attention.
        head_dim: D, elements of a head.
        hidden_size: width of the layer's input and output; Hq D when None.
        rope: how query and key rotate; not at all when None.
        qkv_bias, out_bias: whether the projections have a bias.
        qk_norm: an RMS norm of each query head and each key head, before they rotate (Qwen 3, Gemma 3). Its weight is
            multiplied as it is: where a model stores the weight minus one, add the one.
        qk_norm_eps: added to the mean square.
        causal: a token sees itself and what came before.
        window: of what it sees, the last `window` tokens, itself included; needs `causal`.
        scale: of the scores; 1 / sqrt(D) when None.
        softcap: scores become softcap * tanh(score / softcap); 0 is none (Gemma 2).
        sinks: one learned logit a head that belongs to no key (gpt-oss).
    """

    num_query_heads: int
    num_kv_heads: int = 1
    head_dim: int = 128
    rope: RopeConfig | None = None
    hidden_size: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    qk_norm_eps: float = 1e-6
    causal: bool = True
    window: int | None = None
    scale: float | None = None
    softcap: float = 0.0
    sinks: bool = False

    @property
    def width(self) -> int:
        """Of the layer's input and output."""
        return self.num_query_heads * self.head_dim if self.hidden_size is None else self.hidden_size

    @property
    def sections(self) -> tuple[int, int, int]:
        """Widths of query, key and value in a joint projection."""
        kv = self.num_kv_heads * self.head_dim
        return self.num_query_heads * self.head_dim, kv, kv

    def validate(self) -> MultiQueryConfig:
        """This configuration itself, if it is consistent.

        Raises:
            ValueError: one for everything that is not, a line for each field.
        """
        found = [*self._sizes(), *self._rope(), *self._numbers()]
        if found:
            raise ValueError("inconsistent MultiQueryConfig:\n" + "\n".join(f"  {line}" for line in found))
        return self

    def _sizes(self) -> list[str]:
        found = []
        for name in ("num_query_heads", "num_kv_heads", "head_dim", "hidden_size"):
            value = getattr(self, name)
            if not is_positive_integer(value) and not (name == "hidden_size" and value is None):
                found.append(f"{name} is {value!r}, expected a positive integer")
        heads = self.num_query_heads, self.num_kv_heads
        if all(map(is_positive_integer, heads)) and heads[0] % heads[1]:
            found.append(f"num_query_heads is {heads[0]}, expected a multiple of num_kv_heads {heads[1]}")
        return found

    def _rope(self) -> list[str]:
        if self.rope is None:
            return []
        if not isinstance(self.rope, RopeConfig):
            return [f"rope is {self.rope!r}, expected its settings, a RopeConfig, or None"]
        return self.rope.problems(self.head_dim) if is_positive_integer(self.head_dim) else []

    def _numbers(self) -> list[str]:
        found = []
        if self.window is not None and not is_positive_integer(self.window):
            found.append(f"window is {self.window!r}, expected a positive integer or None")
        if self.window is not None and not self.causal:
            found.append(f"window is {self.window!r} without causal, expected causal attention or no window")
        if self.scale is not None and not is_above(self.scale, 0):
            found.append(f"scale is {self.scale!r}, expected a positive number or None")
        if self.softcap != 0 and not is_above(self.softcap, 0):
            found.append(f"softcap is {self.softcap!r}, expected a positive number, or 0 for none")
        if self.qk_norm_eps != 0 and not is_above(self.qk_norm_eps, 0):
            found.append(f"qk_norm_eps is {self.qk_norm_eps!r}, expected a number that is not negative")
        for name in ("qkv_bias", "out_bias", "qk_norm", "causal", "sinks"):
            if not isinstance(getattr(self, name), bool):
                found.append(f"{name} is {getattr(self, name)!r}, expected True or False")
        return found
