"""A GGUF file of random weights in the lfm2 architecture, which transformers keeps packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import rocforge_ops as rf


def write_model(file: Path, hidden: int, layers: int, vocabulary: int) -> None:
    """An lfm2 file in Q4_K, and Q6_K where precision matters most; two layers in three are convolutions."""
    from gguf import GGUFWriter

    heads, head_dim, feed_forward = hidden // 64, 64, hidden * 9 // 4 // 256 * 256
    kv_heads = max(1, heads // 4)
    attends = [layer % 3 == 2 for layer in range(layers)]
    writer = GGUFWriter(file, "lfm2")
    for key, value in {
        "block_count": layers,
        "context_length": 4096,
        "embedding_length": hidden,
        "feed_forward_length": feed_forward,
        "attention.head_count": heads,
        "shortconv.l_cache": 3,
    }.items():
        writer.add_uint32(f"lfm2.{key}", value)
    writer.add_array("lfm2.attention.head_count_kv", [kv_heads if attend else 0 for attend in attends])
    writer.add_float32("lfm2.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32("lfm2.rope.freq_base", 1e6)
    writer.add_token_list([f"t{i}" for i in range(vocabulary)])

    numbers = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        if len(shape) == 1 or name.endswith("shortconv.conv"):
            writer.add_tensor(f"{name}.weight", np.ones(shape, dtype=np.float32) / shape[-1] ** (len(shape) - 1))
        else:
            format = "Q6_K" if "token_embd" in name or "down" in name else "Q4_K"
            writer.add_tensor(f"{name}.weight", random_blocks(format, *shape, numbers), raw_dtype=ggml_type(format))

    add("token_embd", vocabulary, hidden)
    add("token_embd_norm", hidden)
    for layer, attend in enumerate(attends):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm", hidden)
        add(f"{block}.ffn_norm", hidden)
        if attend:
            add(f"{block}.attn_q", hidden, hidden)
            add(f"{block}.attn_k", kv_heads * head_dim, hidden)
            add(f"{block}.attn_v", kv_heads * head_dim, hidden)
            add(f"{block}.attn_output", hidden, hidden)
            add(f"{block}.attn_q_norm", head_dim)
            add(f"{block}.attn_k_norm", head_dim)
        else:
            add(f"{block}.shortconv.in_proj", 3 * hidden, hidden)
            add(f"{block}.shortconv.out_proj", hidden, hidden)
            add(f"{block}.shortconv.conv", hidden, 3)
        add(f"{block}.ffn_gate", feed_forward, hidden)
        add(f"{block}.ffn_up", feed_forward, hidden)
        add(f"{block}.ffn_down", hidden, feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ggml_type(format: str) -> int:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[format]


def random_blocks(format: str, rows: int, cols: int, numbers: np.random.Generator) -> np.ndarray:
    """uint8 [rows, row_bytes]: random levels under scales that make mean 0 and standard deviation 1 / sqrt(cols)."""
    described = rf.formats[format]
    packed = numbers.integers(0, 256, (rows, cols // 256, described.block_bytes), dtype=np.uint8)
    # Unscaled, random levels have these deviations; Q4_K's are centred when dmin is 7.5 times d.
    deviation = {"Q4_K": 252.0, "Q6_K": 1365.0}[format]
    d = 1 / (deviation * cols**0.5)
    halves = np.array([d, 7.5 * d] if format == "Q4_K" else [d], dtype=np.float16).view(np.uint8)
    begin = 0 if format == "Q4_K" else 208
    packed[..., begin : begin + len(halves)] = halves
    return packed.reshape(rows, -1)
