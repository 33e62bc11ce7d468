"""GGUF weights and grouped attention as PyTorch operators (`torch.ops.rocforge`)."""

from pathlib import Path

from rocforge_ops import attention, ggml_kernel, integrations, nn
from rocforge_ops.attention import register_attention, scaled_dot_product_attention
from rocforge_ops.cache import KVCache
from rocforge_ops.config import MultiQueryConfig
from rocforge_ops.formats import formats
from rocforge_ops.gguf import GGUFError, GGUFFile, GGUFTensor
from rocforge_ops.models import load_into, load_model, load_state_dict, load_tokenizer
from rocforge_ops.ops import (
    dequantize,
    embedding,
    grouped_linear,
    linear,
    mqa_attention,
    qkv_rope_cache,
    repeat_kv,
    rotary_embedding,
)
from rocforge_ops.rope import RopeConfig

__version__ = "0.1.0"

cmake_prefix_path = str(Path(__file__).parent)  # for find_package(rocforge) of a C++ project

__all__ = [
    "GGUFError",
    "GGUFFile",
    "GGUFTensor",
    "KVCache",
    "MultiQueryConfig",
    "RopeConfig",
    "attention",
    "cmake_prefix_path",
    "dequantize",
    "embedding",
    "formats",
    "ggml_kernel",
    "grouped_linear",
    "integrations",
    "linear",
    "load_into",
    "load_model",
    "load_state_dict",
    "load_tokenizer",
    "mqa_attention",
    "nn",
    "qkv_rope_cache",
    "register_attention",
    "repeat_kv",
    "rotary_embedding",
    "scaled_dot_product_attention",
]
