"""The GPT-2 line: gpt2, starcoder (GPTBigCode, multi-query) and starcoder2."""

from __future__ import annotations

from ..architecture import DECODER, TOKENS, Architecture, Rule, has, optional, tied
from ..header import Header

LAYER_NORM = "attention.layer_norm_epsilon"


def positions(file: Header) -> int:
    """Both classes build tables of this size, so a wrong number is refused first."""
    length, rows = file.count("context_length"), file.shape("position_embd.weight")[0]
    if length != rows:
        raise ValueError(f"{file.architecture}.context_length is {length}, but position_embd.weight has {rows} rows")
    return length


LEARNED_POSITIONS = TOKENS | {
    "vocab_size": lambda file: file.vocab_size,
    "n_positions": positions,
    "n_embd": lambda file: file.width,
    "n_inner": "feed_forward_length",
    "n_layer": lambda file: file.layers,
    "n_head": lambda file: file.heads,
    "layer_norm_epsilon": LAYER_NORM,
    "tie_word_embeddings": tied,
}


def multi_query(file: Header) -> bool:
    """Nothing else says so than one kv head. With more of them the order of the fused rows is not defined."""
    if file.kv_heads != 1:
        raise ValueError(f"a {file.architecture} model has one key/value head, this one says {file.kv_heads}")
    return True


ARCHITECTURES = (
    # transformers' GPT-2 holds its matrices [in, out].
    Architecture(
        "gpt2", "GPT2LMHeadModel", LEARNED_POSITIONS, (Rule(r".*\.c_(?:attn|proj|fc)\.weight", transpose=True),)
    ),
    Architecture("starcoder", "GPTBigCodeForCausalLM", LEARNED_POSITIONS | {"multi_query": multi_query}),
    Architecture(
        "starcoder2",
        "Starcoder2ForCausalLM",
        DECODER
        | {
            "norm_epsilon": LAYER_NORM,
            "use_bias": has("blk.0.attn_q.bias"),
            "sliding_window": optional("attention.sliding_window"),
        },
    ),
)
