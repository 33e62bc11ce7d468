"""Builds a transformers tokenizer from the vocabulary in a GGUF file."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from rocforge_ops.gguf import GGUFFile

from .header import Header
from .require import require

logger = logging.getLogger(__name__)

CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type

# transformers' name of a value <- the file's, without "tokenizer.ggml."
KEYS = {
    "tokenizer_type": "model",
    "pre_tokenizer_type": "pre",
    "tokens": "tokens",
    "scores": "scores",
    "token_type": "token_type",
    "merges": "merges",
    "precompiled_charsmap": "precompiled_charsmap",
    "unk_token_id": "unknown_token_id",
}

# How byte-level vocabularies split text before merging, by tokenizer.ggml.pre. transformers knows some names; these are
# further names for splits it knows, ...
SAME_SPLIT = {"stablelm2": "qwen2", "chatglm-bpe": "llama-bpe", "glm4": "llama-bpe"}
# ... those that split as GPT-2 does, and those that do so after cutting numbers into digits.
GPT2_SPLIT = {"default", "gpt-2", "gpt2", "mpt", "olmo", "jais", "trillion"}
SINGLE_DIGITS = {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva"}

# Vocabularies whose whole words count although no merges lead to them, and which begin with BOS unless told otherwise.
WHOLE_WORDS = {
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken",
}  # fmt: skip


def load_tokenizer(path: str | os.PathLike[str]) -> Any:
    """A transformers fast tokenizer from the file's own vocabulary, special tokens and chat template.

    Raises:
        GGUFError: the file is malformed.
        ValueError: the file has no tokenizer, or one of a kind that transformers cannot build.
        ImportError: transformers is not installed.
    """
    with GGUFFile(path) as file:
        keys = {name: file.metadata.get(f"tokenizer.ggml.{key}") for name, key in KEYS.items()}
        if not keys["tokens"]:
            raise ValueError(f"{os.fspath(path)} has no tokenizer: there is no key tokenizer.ggml.tokens")
        backend = _backend(file.architecture or "", {name: value for name, value in keys.items() if value is not None})
        _set_whole_words(backend, keys["pre_tokenizer_type"])
        if file.metadata.get("tokenizer.ggml.add_space_prefix") is False:
            _drop_space_prefix(backend)
        header = Header(file)
        names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        ids = {kind: header.token_id(name, len(keys["tokens"])) for kind, name in names.items()}
        special = {kind: None if id is None else keys["tokens"][id] for kind, id in ids.items()}
        tokenizer = require("transformers").PreTrainedTokenizerFast(
            tokenizer_object=_with_file_ids(backend, keys["tokens"], keys["token_type"] or [], special, ids),
            chat_template=_chat_template(file),
            clean_up_tokenization_spaces=False,
            model_max_length=header.get("context_length", int(1e30)),
            add_bos_token=file.metadata.get("tokenizer.ggml.add_bos_token", _begins_with_bos(keys)),
            add_eos_token=file.metadata.get("tokenizer.ggml.add_eos_token", False),
            **special,
        )
    return tokenizer


def _backend(architecture: str, keys: dict[str, Any]) -> Any:
    """The `tokenizers` object: vocabulary, merges, normaliser, pre-tokeniser, decoder."""
    pre = keys.get("pre_tokenizer_type", "default")
    keys["pre_tokenizer_type"] = SAME_SPLIT.get(pre, pre)
    try:
        from transformers.integrations.gguf import convert_gguf_tokenizer
    except ImportError:  # where it was until 5.22
        convert_gguf_tokenizer = require("transformers.integrations.ggml").convert_gguf_tokenizer
    backend, _ = convert_gguf_tokenizer(architecture, keys)
    if keys["tokenizer_type"] == "gpt2":
        _set_split(backend, pre)
    return backend


def _set_split(backend: Any, pre: str) -> None:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Sequence, Split

    gpt2 = ByteLevel(add_prefix_space=False, use_regex=True)
    if pre in SINGLE_DIGITS:
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), gpt2])
    elif pre == "falcon":
        threes = Split(Regex("[0-9][0-9][0-9]"), behavior="isolated")
        backend.pre_tokenizer = Sequence([Punctuation("contiguous"), gpt2, Digits(individual_digits=False), threes])
    elif pre not in GPT2_SPLIT and isinstance(backend.pre_tokenizer, ByteLevel):
        logger.warning("tokenizer.ggml.pre %r is not known: text is split as for GPT-2, and token ids may differ", pre)


def _set_whole_words(backend: Any, pre: str | None) -> None:
    if pre in WHOLE_WORDS:
        model = backend.model
        model.ignore_merges = True
        backend.model = model


def _begins_with_bos(keys: dict[str, Any]) -> bool:
    """For files that do not say: SentencePiece vocabularies do, of the byte-level ones only those of Llama 3's kind."""
    return keys["tokenizer_type"] == "llama" or keys["pre_tokenizer_type"] in WHOLE_WORDS


def _drop_space_prefix(backend: Any) -> None:
    """Some SentencePiece models put no space before the first word; Gemma's kind never does."""
    from tokenizers import decoders
    from tokenizers.pre_tokenizers import Metaspace

    if isinstance(backend.pre_tokenizer, Metaspace):
        backend.pre_tokenizer = Metaspace(prepend_scheme="never", split=False)
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _with_file_ids(
    backend: Any, tokens: list[str], types: list[int], special: dict[str, str | None], ids: dict[str, int | None]
) -> Any:
    """Makes special tokens have the ids the file gives them, and no others exist.

    transformers' builder spells tokens outside the byte alphabet in bytes, so that they cannot be found by their text,
    and adds its classes' own special tokens behind a vocabulary that lacks them.
    """
    right = all(text is None or backend.token_to_id(text) == ids[kind] for kind, text in special.items())
    if right and backend.get_vocab_size(with_added_tokens=True) <= len(tokens):
        return backend
    state = json.loads(backend.to_str())
    vocabulary = state["model"]["vocab"]
    spelling = {id: text for text, id in vocabulary.items()}
    added = {id: True for id in ids.values() if id is not None}
    added |= {id: type == CONTROL for id, type in enumerate(types) if type in (CONTROL, USER_DEFINED)}
    for id in added:
        vocabulary.pop(spelling.get(id), None)
        vocabulary[tokens[id]] = id
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    state["added_tokens"] = [
        {"id": id, "content": tokens[id], "special": is_control, **plain} for id, is_control in sorted(added.items())
    ]
    return type(backend).from_str(json.dumps(state))


def _chat_template(file: GGUFFile) -> str | dict[str, str] | None:
    """The template, or all of them by name where the file has several."""
    default = file.metadata.get("tokenizer.chat_template")
    names = file.metadata.get("tokenizer.chat_templates", [])
    templates = {name: file.metadata[f"tokenizer.chat_template.{name}"] for name in names}
    if not templates:
        return default
    return templates if default is None else {"default": default, **templates}
