"""Tokenizers out of GGUF files: the same ids as the tokenizer whose vocabulary was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import rocforge_ops as rf

pytest.importorskip("transformers", reason="loading tokenizers needs the hf extra")
pytest.importorskip("gguf", reason="these tests write GGUF files")

import gguf
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
TEXTS = (
    "Hello, world! It's 12345 o'clock.",
    " leading and  double   spaces\n\n\ttabs",
    "Grüße, 東京 und ☃ 3.14159",
    "don't DON'T we'll",
    "",
)

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{WORDS}|\p{{N}}|{REST}"


def splits(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2])
FALCON = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Punctuation("contiguous"),
        GPT2,
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), behavior="isolated"),
    ]
)


def byte_level(pre_tokenizer: Any) -> Tokenizer:
    """A byte-level BPE tokenizer trained on the texts, so that it knows some of their words whole."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def write_vocabulary(
    path: Path,
    tokens: Sequence[str],
    types: Sequence[int],
    *,
    model: str = "gpt2",
    pre: str = "gpt-2",
    merges: Sequence[str] = (),
    architecture: str = "llama",
    **keys: Any,
) -> None:
    """A file with a vocabulary and nothing else; `keys` are methods of GGUFWriter and their argument."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(types))
    if merges:
        writer.add_token_merges(list(merges))
    for method, value in keys.items():
        getattr(writer, method)(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_tokenizer(path: Path, tokenizer: Tokenizer, added: dict[str, int] | None = None, **keys: Any) -> list[str]:
    """The vocabulary of a byte-level tokenizer, then `added` tokens (text: type). Returns all tokens."""
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    types = [NORMAL] * len(tokens)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    added = added or {}
    write_vocabulary(path, tokens + list(added), types + list(added.values()), merges=merges, **keys)
    return tokens + list(added)


@pytest.mark.parametrize(
    ("pre", "pre_tokenizer"),
    [
        ("gpt-2", GPT2),
        ("olmo", GPT2),
        ("qwen2", splits(QWEN2)),
        ("stablelm2", splits(QWEN2)),
        ("llama-bpe", splits(LLAMA3)),
        ("chatglm-bpe", splits(LLAMA3)),
        ("starcoder", DIGITS),
        ("command-r", DIGITS),
        ("falcon", FALCON),
    ],
)
def test_byte_level_ids(tmp_path: Path, pre: str, pre_tokenizer: Any) -> None:
    original = byte_level(pre_tokenizer)
    write_tokenizer(tmp_path / "vocab.gguf", original, pre=pre, add_add_bos_token=False)
    loaded = rf.load_tokenizer(tmp_path / "vocab.gguf")
    assert loaded.is_fast
    for text in TEXTS:
        ids = original.encode(text).ids
        assert loaded(text).input_ids == ids, text
        assert loaded.decode(ids) == text


def test_unknown_split_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tokenizer(tmp_path / "vocab.gguf", byte_level(GPT2), pre="a-new-one")
    rf.load_tokenizer(tmp_path / "vocab.gguf")
    assert "tokenizer.ggml.pre 'a-new-one' is not known" in caplog.text


def test_whole_words_need_no_merges(tmp_path: Path) -> None:
    """Llama 3 knows words that its merges do not lead to."""
    tokens = write_tokenizer(tmp_path / "vocab.gguf", byte_level(splits(LLAMA3)), {"zyx": NORMAL}, pre="llama-bpe")
    tokenizer = rf.load_tokenizer(tmp_path / "vocab.gguf")
    assert tokenizer("zyx", add_special_tokens=False).input_ids == [tokens.index("zyx")]


@pytest.mark.parametrize("bos", ["<|begin|>", "<begin▁of▁text>"])
def test_special_tokens_have_the_files_ids(tmp_path: Path, bos: str) -> None:
    """Also those with characters outside of the byte alphabet, and no others appear."""
    original = byte_level(GPT2)
    n = original.get_vocab_size()
    added = {bos: CONTROL, "<|end|>": CONTROL, "<think>": USER_DEFINED}
    ids = {"add_bos_token_id": n, "add_eos_token_id": n + 1, "add_add_bos_token": True, "add_add_eos_token": True}
    tokens = write_tokenizer(tmp_path / "vocab.gguf", original, added, **ids)
    tokenizer = rf.load_tokenizer(tmp_path / "vocab.gguf")
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == (bos, n)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|end|>", n + 1)
    assert (tokenizer.pad_token, tokenizer.unk_token) == (None, None)
    assert len(tokenizer) == len(tokens)
    inner = original.encode("don't").ids
    assert tokenizer("don't").input_ids == [n, *inner, n + 1]
    text = f"{bos}don't<think><|end|>"
    assert tokenizer(text, add_special_tokens=False).input_ids == [n, *inner, n + 2, n + 1]
    assert tokenizer.decode([n, *inner, n + 2, n + 1], skip_special_tokens=True) == "don't<think>"


def sentencepiece(path: Path, **keys: Any) -> list[str]:
    """Bytes, letters and a few words; the better a piece, the higher its score."""
    words = ["he", "▁he", "ll", "▁hell", "▁hello"]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *"▁helo", *words]
    types = [2, CONTROL, CONTROL, *[6] * 256, *[NORMAL] * (len(tokens) - 259)]
    scores = [0.0] * 264 + [-1.0, -2.0, -3.0, -4.0, -5.0]
    special = {"add_bos_token_id": 1, "add_eos_token_id": 2, "add_unk_token_id": 0}
    write_vocabulary(path, tokens, types, model="llama", pre="default", add_token_scores=scores, **special, **keys)
    return tokens


def test_sentencepiece_begins_with_bos_and_a_space(tmp_path: Path) -> None:
    tokens = sentencepiece(tmp_path / "vocab.gguf")
    tokenizer = rf.load_tokenizer(tmp_path / "vocab.gguf")
    ids = tokenizer("hello é").input_ids
    assert [tokens[id] for id in ids] == ["<s>", "▁hello", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hello é"


def test_sentencepiece_without_space_prefix(tmp_path: Path) -> None:
    tokens = sentencepiece(tmp_path / "vocab.gguf", add_add_space_prefix=False, add_add_bos_token=False)
    tokenizer = rf.load_tokenizer(tmp_path / "vocab.gguf")
    ids = tokenizer("hello").input_ids
    assert [tokens[id] for id in ids] == ["he", "ll", "o"]
    assert tokenizer.decode(ids) == "hello"
    assert tokenizer.decode(tokenizer(" hello").input_ids) == " hello"


def test_chat_template(tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    sentencepiece(tmp_path / "one.gguf", add_chat_template=template)
    tokenizer = rf.load_tokenizer(tmp_path / "one.gguf")
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "[user] hello"

    named = [{"name": "default", "template": template}, {"name": "shout", "template": "{{ messages[0].content }}!"}]
    sentencepiece(tmp_path / "two.gguf", add_chat_template=named)
    tokenizer = rf.load_tokenizer(tmp_path / "two.gguf")
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "[user] hello"
    assert tokenizer.apply_chat_template(messages, chat_template="shout", tokenize=False) == "hello!"


def test_recorded_ids_and_text(shared_models: Path) -> None:
    recorded = json.loads((shared_models / "stories260K-Q8_0.json").read_text())
    tokenizer = rf.load_tokenizer(shared_models / "stories260K-Q8_0.gguf")
    assert tokenizer("Once upon a time").input_ids == recorded["ids"]
    assert tokenizer.pad_token is None, "4294967295 stands for none"
    assert tokenizer.model_max_length == 128


def test_no_tokenizer_is_said(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"model\.gguf has no tokenizer: there is no key tokenizer\.ggml\.tokens"):
        rf.load_tokenizer(tmp_path / "model.gguf")


def test_unsupported_kind_is_said(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocab.gguf", ["a", "b"], [1, 1], model="rwkv")
    with pytest.raises(ValueError, match="rwkv"):
        rf.load_tokenizer(tmp_path / "vocab.gguf")


def test_special_token_outside_the_vocabulary(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "vocab.gguf", byte_level(GPT2), add_bos_token_id=100000)
    with pytest.raises(ValueError, match=r"bos_token_id is 100000, but the vocabulary has \d+ entries"):
        rf.load_tokenizer(tmp_path / "vocab.gguf")
