"""mqa_attention behind interfaces that models already use: PyTorch's function and transformers' registry."""

from rocforge_ops.attention.sdpa import replacing_sdpa, scaled_dot_product_attention
from rocforge_ops.attention.transformers import register_attention

__all__ = ["register_attention", "replacing_sdpa", "scaled_dot_product_attention"]
