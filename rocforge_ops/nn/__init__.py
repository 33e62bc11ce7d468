"""torch modules on this package's operators."""

from rocforge_ops.nn.multi_query_attention import MultiQueryAttention, SeparateProjections
from rocforge_ops.nn.rotary import RotaryAngles

__all__ = ["MultiQueryAttention", "RotaryAngles", "SeparateProjections"]
