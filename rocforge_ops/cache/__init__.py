"""Keys and values of tokens already seen, on the device."""

from rocforge_ops.cache.kv_cache import KVCache
from rocforge_ops.cache.layer import KVLayer

__all__ = ["KVCache", "KVLayer"]
