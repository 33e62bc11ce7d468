"""phi3: Phi-3, Phi-3.5 and Phi-4. q, k, v and gate, up stay fused as transformers has them."""

from __future__ import annotations

from ..architecture import DECODER, PARTIAL_ROPE, RMS_NORM, Architecture
from ..header import Header
from ..rope import original_context


def sliding_window(file: Header) -> int | None:
    """0 means none."""
    return file.get("attention.sliding_window", 0) or None


ARCHITECTURES = (
    Architecture(
        "phi3",
        "Phi3ForCausalLM",
        DECODER
        | RMS_NORM
        | PARTIAL_ROPE
        | {
            "sliding_window": sliding_window,
            "original_max_position_embeddings": original_context,
        },
    ),
)
