"""A byte-level BPE tokenizer for the stories, in the manner of GPT-2: any text survives encoding and decoding."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 768
END_OF_TEXT = "<|endoftext|>"  # stands between stories, so it both begins and ends one
PADDING = "<|pad|>"


def train_tokenizer(stories: Iterable[str]) -> Tokenizer:
    """Ids 0 and 1 are END_OF_TEXT and PADDING, then the 256 bytes, then one token per merge."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return tokenizer
