"""One file per operator: wrapper, fake (shapes without data) and autograd of one op on one screen."""

from rocforge_ops.ops.dequantize import dequantize
from rocforge_ops.ops.embedding import embedding
from rocforge_ops.ops.linear import grouped_linear, linear
from rocforge_ops.ops.mqa_attention import mqa_attention
from rocforge_ops.ops.mqa_attention_q8_0 import mqa_attention_q8_0
from rocforge_ops.ops.qkv_rope_cache import qkv_rope_cache
from rocforge_ops.ops.repeat_kv import repeat_kv
from rocforge_ops.ops.rotary_embedding import rotary_embedding

__all__ = [
    "dequantize",
    "embedding",
    "grouped_linear",
    "linear",
    "mqa_attention",
    "mqa_attention_q8_0",
    "qkv_rope_cache",
    "repeat_kv",
    "rotary_embedding",
]
