"""Trains the demo model: a LlamaForCausalLM with one KV head, in float32, on stories drawn as it goes."""

from __future__ import annotations

import math
import random
import time

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from .grammar import story
from .tokenizer import END_OF_TEXT, PADDING

CONTEXT = 320  # tokens: the longest story takes about 280, and a prompt has room
PEAK_LEARNING_RATE = 4e-3
WARMUP_STEPS = 100
WEIGHT_DECAY = 0.1
MAX_GRADIENT_NORM = 1.0
IGNORED = -100  # a label without a loss


def model_config(tokenizer: Tokenizer) -> LlamaConfig:
    """Every row is a multiple of 32 weights, the block size of the formats it is stored in."""
    end_of_text = tokenizer.token_to_id(END_OF_TEXT)
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=tokenizer.token_to_id(PADDING),
    )


def train(tokenizer: Tokenizer, steps: int, stories: int, seed: int) -> LlamaForCausalLM:
    """A model trained for `steps` batches of `stories` stories each."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = LlamaForCausalLM(model_config(tokenizer)).train()
    optimizers = _optimizers(model)
    start = time.perf_counter()
    recent: list[float] = []  # losses since the last line printed
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = _learning_rate(step, steps)
        ids, labels = _batch(tokenizer, stories, rng)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        for optimizer in optimizers:
            optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds, mean = time.perf_counter() - start, sum(recent) / len(recent)
            print(f"step {step + 1}/{steps}  loss {mean:.4f} nats/token  {seconds:.0f} s", flush=True)
            recent.clear()
    return model.eval()


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between hidden states, AdamW for the embedding and the norms.

    Muon reaches a loss in fewer steps than AdamW alone; its rates are scaled to AdamW's, so that both follow one
    schedule.
    """
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in model.parameters() if p.ndim != 2 or p is embedding]
    return [
        torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a half cosine down to 2 % of the peak."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_LEARNING_RATE * warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batch(tokenizer: Tokenizer, stories: int, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, int64 [stories, longest]: a story a row between two END_OF_TEXT, padded on the right.

    Every other row leaves its first END_OF_TEXT out, so that the model tells a story whether or not the prompt has one.
    """
    end_of_text, padding = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(PADDING)
    rows = [[end_of_text, *tokenizer.encode(story(rng)).ids, end_of_text][row % 2 :] for row in range(stories)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])
    return ids, labels
