from __future__ import annotations

import importlib
import random
import re
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from types import ModuleType

import gguf
import pytest
import torch

import rocforge_ops as rf

TOOLS = Path(__file__).parent.parent / "tools"
DEMO = Path(rf.__file__).parent / "data" / "demo.gguf"


@pytest.fixture
def grammar(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("demo_model.grammar")


@pytest.fixture(scope="module")
def tell():
    """Continues a prompt greedily to the end of the story and returns the whole text."""
    model, tokenizer = rf.load_model(DEMO, dtype=torch.float32), rf.load_tokenizer(DEMO)

    def tell(prompt: str) -> str:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        room = model.config.max_position_embeddings - inputs.input_ids.shape[1]
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=room, do_sample=False)[0]
        assert ids[-1] == tokenizer.eos_token_id, "the story does not end"
        return tokenizer.decode(ids, skip_special_tokens=True)

    return tell


def test_file():
    reader = gguf.GGUFReader(DEMO)
    formats = {tensor.tensor_type.name for tensor in reader.tensors}
    assert DEMO.stat().st_size <= 1_000_000
    assert formats == {"Q4_1", "Q5_0", "Q5_1", "Q8_0", "F32"}
    assert reader.get_field("llama.attention.head_count_kv").contents() == 1
    assert reader.get_field("general.license").contents() == "mit"


def test_story_is_readable(tell, grammar):
    story = tell("Once upon a time")
    sentences = re.split(r'(?<=\.)"? ', story)
    assert set(grammar.words(story)) <= grammar.vocabulary()
    assert len(sentences) >= 8
    assert all(sentence.lstrip('"')[0].isupper() for sentence in sentences)
    assert story.endswith((".", '."', '!"'))
    assert tell("Once upon a time") == story


@pytest.mark.parametrize("hero", ["Zoe", "Hugo", "Bob"])
def test_story_keeps_to_its_characters(tell, grammar, hero):
    names = set(f"{grammar.plots.GIRLS} | {grammar.plots.BOYS}".split(" | "))
    kind = "girl" if hero in grammar.plots.GIRLS else "boy"
    story = tell(f"Once upon a time, there was a brave {kind} named {hero}.")
    told = [word for word in grammar.words(story) if word in names]
    assert told.count(hero) >= 4
    assert len(set(told)) <= 2, f"a hero and at most one friend, but {sorted(set(told))}"


def test_tokenizer_round_trip():
    tokenizer = rf.load_tokenizer(DEMO)
    for text in ('"Help!" said Mia.', "  two  spaces\n\tand a tab", "Zürich 東京 🦊"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_grammar_needs_no_other_article(grammar):
    rng = random.Random(0)
    for _ in range(500):
        assert not re.search(r"\b[Aa] [aeiouAEIOU]", grammar.story(rng))


def test_training_is_reproducible(tmp_path):
    command = [sys.executable, TOOLS / "make_demo_model.py", "--steps=2", "--stories=1", "--threads=1", "--out"]
    files = [tmp_path / "first.gguf", tmp_path / "second.gguf"]
    runs = [Popen([*command, file], stdout=PIPE, stderr=STDOUT) for file in files]
    for run in runs:
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output.decode()
    assert files[0].read_bytes() == files[1].read_bytes()
