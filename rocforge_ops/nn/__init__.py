"""torch modules on this package's operators; those on weights in GGUF blocks are in docs/models.md."""

from rocforge_ops.nn.embedding import QuantizedEmbedding
from rocforge_ops.nn.experts import GroupedLinear, QuantizedExperts
from rocforge_ops.nn.gate import ClampedSwiGLU, Gate
from rocforge_ops.nn.linear import QuantizedLinear
from rocforge_ops.nn.mlp import GatedMLP, fuse_gates
from rocforge_ops.nn.multi_query_attention import MultiQueryAttention, SeparateProjections
from rocforge_ops.nn.packed import PackedLayer, PackedModule
from rocforge_ops.nn.rotary import RotaryAngles

__all__ = [
    "ClampedSwiGLU",
    "Gate",
    "GatedMLP",
    "GroupedLinear",
    "MultiQueryAttention",
    "PackedLayer",
    "PackedModule",
    "QuantizedEmbedding",
    "QuantizedExperts",
    "QuantizedLinear",
    "RotaryAngles",
    "SeparateProjections",
    "fuse_gates",
]
