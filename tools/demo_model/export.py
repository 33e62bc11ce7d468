"""Writes the trained model and its tokenizer to a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Format
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from .tokenizer import END_OF_TEXT, PADDING

# The four formats of 32 weights with one scale, most weights in Q4_1. More bits go where errors spread furthest: to the
# embedding, which is the output layer too, and to the single value head that all query heads read.
FORMATS = {
    "token_embd": Format.Q8_0,
    "attn_q": Format.Q5_0,
    "attn_k": Format.Q5_0,
    "attn_v": Format.Q8_0,
    "attn_output": Format.Q4_1,
    "ffn_gate": Format.Q4_1,
    "ffn_up": Format.Q4_1,
    "ffn_down": Format.Q5_1,
    "attn_norm": Format.F32,
    "ffn_norm": Format.F32,
    "output_norm": Format.F32,
}
DESCRIPTION = (
    "A toy story teller with one key/value head, trained from scratch on stories drawn from a small grammar by "
    "tools/make_demo_model.py of rocforge_ops. It knows nothing but these stories."
)


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """One complete GGUF file of architecture llama; the same model gives the same bytes."""
    writer = gguf.GGUFWriter(path, "llama")
    _add_general(writer, model)
    _add_architecture(writer, model.config)
    _add_tokenizer(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    for hf_name, parameter in model.named_parameters():  # tied: lm_head is not a parameter of its own
        name = names.get_name(hf_name, try_suffixes=(".weight",))
        weight = _to_ggml_order(name, parameter.detach().numpy(), model.config)
        format = FORMATS[name.split(".")[-2]]
        writer.add_tensor(name, gguf.quants.quantize(weight, format), raw_dtype=format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _to_ggml_order(name: str, weight: np.ndarray, config: LlamaConfig) -> np.ndarray:
    """Reorder rows of q and k: transformers rotates row i of a head with row i + head_dim / 2, ggml with row i + 1."""
    if "attn_q." not in name and "attn_k." not in name:
        return weight
    halves = weight.reshape(-1, 2, config.head_dim // 2, weight.shape[-1])  # [heads, half, pair, in]
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _add_general(writer: gguf.GGUFWriter, model: LlamaForCausalLM) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("rocforge story teller")
    writer.add_description(DESCRIPTION)
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_tags(["text-generation"])
    writer.add_size_label(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_architecture(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Model "gpt2" is byte-level BPE; pre "gpt-2" names the way that ByteLevel splits text into words."""
    specials = {END_OF_TEXT, PADDING}
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    types = [gguf.TokenType.CONTROL if token in specials else gguf.TokenType.NORMAL for token in tokens]
    end_of_text = tokenizer.token_to_id(END_OF_TEXT)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(end_of_text)
    writer.add_eos_token_id(end_of_text)
    writer.add_unk_token_id(end_of_text)  # no text needs it: every byte has a token
    writer.add_pad_token_id(tokenizer.token_to_id(PADDING))
    writer.add_add_bos_token(True)
