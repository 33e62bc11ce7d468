"""Small models with random weights, written to GGUF files as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

HIDDEN, FEED_FORWARD, VOCABULARY, HEADS, KV_HEADS, HEAD_DIM = 64, 96, 48, 2, 1, 32
CONV_TAPS, KEY_HEADS, VALUE_HEADS, EXPERTS = 3, 2, 4, 4  # of the linear attention, and of the mixture

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def attention_shapes(query_rows: int) -> Shapes:
    yield "attn_q", (query_rows, HIDDEN)
    yield "attn_k", (KV_HEADS * HEAD_DIM, HIDDEN)
    yield "attn_v", (KV_HEADS * HEAD_DIM, HIDDEN)
    yield "attn_output", (HIDDEN, HEADS * HEAD_DIM)
    yield "attn_q_norm", (HEAD_DIM,)
    yield "attn_k_norm", (HEAD_DIM,)


def mlp_shapes() -> Shapes:
    yield "ffn_gate", (FEED_FORWARD, HIDDEN)
    yield "ffn_up", (FEED_FORWARD, HIDDEN)
    yield "ffn_down", (HIDDEN, FEED_FORWARD)


def lfm2_shapes() -> Shapes:
    """A convolution and an attention layer."""
    yield "token_embd", (VOCABULARY, HIDDEN)
    yield "token_embd_norm", (HIDDEN,)
    for layer in range(2):
        mixer = attention_shapes(HEADS * HEAD_DIM) if layer else short_convolution_shapes()
        norms = [("attn_norm", (HIDDEN,)), ("ffn_norm", (HIDDEN,))]
        yield from ((f"blk.{layer}.{name}", shape) for name, shape in [*mixer, *mlp_shapes(), *norms])


def short_convolution_shapes() -> Shapes:
    yield "shortconv.in_proj", (3 * HIDDEN, HIDDEN)
    yield "shortconv.out_proj", (HIDDEN, HIDDEN)
    yield "shortconv.conv", (HIDDEN, CONV_TAPS)


def qwen35_shapes(experts: bool = False) -> Shapes:
    """A layer of linear and one of full attention."""
    yield "token_embd", (VOCABULARY, HIDDEN)
    yield "output", (VOCABULARY, HIDDEN)
    yield "output_norm", (HIDDEN,)
    for layer in range(2):
        mixer = attention_shapes(2 * HEADS * HEAD_DIM) if layer else linear_attention_shapes()
        norms = [("attn_norm", (HIDDEN,)), ("post_attention_norm", (HIDDEN,))]
        mlp = expert_shapes() if experts else mlp_shapes()
        yield from ((f"blk.{layer}.{name}", shape) for name, shape in [*mixer, *mlp, *norms])


def linear_attention_shapes() -> Shapes:
    rows = (2 * KEY_HEADS + VALUE_HEADS) * HEAD_DIM
    yield "attn_qkv", (rows, HIDDEN)
    yield "attn_gate", (VALUE_HEADS * HEAD_DIM, HIDDEN)
    yield "ssm_alpha", (VALUE_HEADS, HIDDEN)
    yield "ssm_beta", (VALUE_HEADS, HIDDEN)
    yield "ssm_conv1d", (rows, CONV_TAPS)
    yield "ssm_norm", (HEAD_DIM,)
    yield "ssm_out", (HIDDEN, VALUE_HEADS * HEAD_DIM)
    yield "ssm_a", (VALUE_HEADS,)
    yield "ssm_dt.bias", (VALUE_HEADS,)


def expert_shapes() -> Shapes:
    yield "ffn_gate_inp", (EXPERTS, HIDDEN)
    yield "ffn_gate_exps", (EXPERTS, FEED_FORWARD, HIDDEN)
    yield "ffn_up_exps", (EXPERTS, FEED_FORWARD, HIDDEN)
    yield "ffn_down_exps", (EXPERTS, HIDDEN, FEED_FORWARD)
    yield "ffn_gate_inp_shexp", (HIDDEN,)
    yield "ffn_gate_shexp", (FEED_FORWARD, HIDDEN)
    yield "ffn_up_shexp", (FEED_FORWARD, HIDDEN)
    yield "ffn_down_shexp", (HIDDEN, FEED_FORWARD)


SHAPES = {"lfm2": lfm2_shapes, "qwen35": qwen35_shapes, "qwen35moe": lambda: qwen35_shapes(experts=True)}


def metadata(architecture: str) -> dict[str, object]:
    shared = {
        "block_count": 2,
        "context_length": 128,
        "embedding_length": HIDDEN,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": [0, KV_HEADS] if architecture == "lfm2" else KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
    }
    if architecture == "lfm2":
        return shared | {"shortconv.l_cache": CONV_TAPS}
    hybrid = {
        "attention.key_length": HEAD_DIM,
        "full_attention_interval": 2,
        "ssm.conv_kernel": CONV_TAPS,
        "ssm.state_size": HEAD_DIM,
        "ssm.group_count": KEY_HEADS,
        "ssm.time_step_rank": VALUE_HEADS,
        "ssm.inner_size": VALUE_HEADS * HEAD_DIM,
        "rope.dimension_sections": [2, 1, 1, 0],
        "rope.dimension_count": 8,
    }
    mixture = {
        "expert_feed_forward_length": FEED_FORWARD,
        "expert_shared_feed_forward_length": FEED_FORWARD,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
    }
    return shared | hybrid | (mixture if architecture == "qwen35moe" else {})


def write(path: Path, architecture: str, format: str = "Q4_0", down_format: str = "Q8_0") -> Path:
    """A file of `architecture`: matrices in two formats (`down_format`: the last of a block), the rest in float32."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(path, architecture)
    for key, value in metadata(architecture).items():
        add(writer, f"{architecture}.{key}", value)
    writer.add_token_list([f"t{i}" for i in range(VOCABULARY)])
    numbers = np.random.default_rng(0)
    for name, shape in SHAPES[architecture]():
        values = tensor(name, shape, numbers)
        name = name if name.endswith(("ssm_a", ".bias")) else f"{name}.weight"
        if len(shape) > 1 and shape[-1] % 32 == 0 and "ffn_gate_inp" not in name:
            type = GGMLQuantizationType[down_format if "down" in name or "out" in name else format]
            writer.add_tensor(name, quantize(values, type), raw_dtype=type)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensor(name: str, shape: tuple[int, ...], numbers: np.random.Generator) -> np.ndarray:
    values = numbers.standard_normal(shape).astype(np.float32)
    if name.endswith("ssm_a"):
        return -np.exp(values)  # as llama.cpp stores the decay
    return 1 + 0.1 * values if "norm" in name else values / np.sqrt(shape[-1]).astype(np.float32)


def add(writer: object, key: str, value: object) -> None:
    kind = {int: "uint32", float: "float32", list: "array"}[type(value)]
    getattr(writer, f"add_{kind}")(key, value)
