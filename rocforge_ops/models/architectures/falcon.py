"""falcon: 7B (multi-query, one norm), 40B (grouped, two norms) and 11B (grouped, one norm)."""

from __future__ import annotations

from ..architecture import DECODER, Architecture, Rule, grouped_qkv, has, value
from ..header import Header


def grouped(file: Header) -> bool:
    return file.kv_heads > 1 or file.has("blk.0.attn_norm_2.weight")


FALCON = {name: source for name, source in DECODER.items() if name not in ("intermediate_size", "num_key_value_heads")}

ARCHITECTURES = (
    Architecture(
        "falcon",
        "FalconForCausalLM",
        FALCON
        | {
            "ffn_hidden_size": "feed_forward_length",
            "num_kv_heads": lambda file: file.kv_heads,
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
            "new_decoder_architecture": grouped,
            "num_ln_in_parallel_attn": lambda file: 2 if file.has("blk.0.attn_norm_2.weight") else 1,
            "multi_query": lambda file: not grouped(file),
            "parallel_attn": value(True),
            "alibi": value(False),
            "bias": has("blk.0.attn_qkv.bias"),
        },
        (Rule(r".*\.query_key_value\.(?:weight|bias)", rows=grouped_qkv),),
        attention_interface=False,
    ),
)
