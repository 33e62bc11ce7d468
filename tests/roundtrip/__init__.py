"""Writes tiny transformers models to GGUF as the public converter does, with the `gguf` package alone.

Nothing here uses the loader under test. A case names a configuration, the keys the converter writes for it and what it
does to each weight; `write` gives all weights random values, quantises them and leaves the *decoded* values in the
model, so that the model and the file hold the same numbers and their logits must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Format

# Rows of one parameter, as values or as packed bytes, and their format.
Rows = tuple[np.ndarray, Format]
# All parameters by name -> what the converter makes of them, under names that the package's table knows.
Convert = Callable[[Any, dict[str, Rows]], dict[str, Rows]]


def unchanged(config: Any, parameters: dict[str, Rows]) -> dict[str, Rows]:
    return parameters


def each(convert: Callable[[Any, str, np.ndarray], Iterable[tuple[str, np.ndarray]]]) -> Convert:
    """A conversion that looks at one parameter at a time; (config, name, rows) -> (name, rows) pairs."""

    def convert_all(config: Any, parameters: dict[str, Rows]) -> dict[str, Rows]:
        return {
            new_name: (new_rows, format)
            for name, (rows, format) in parameters.items()
            for new_name, new_rows in convert(config, name, rows)
        }

    return convert_all


@dataclass(frozen=True)
class Case:
    """One architecture, or one variant of it."""

    architecture: str
    config_class: str
    config: Mapping[str, Any]
    keys: Callable[[Any], Mapping[str, Any]]  # methods of GGUFWriter and their argument
    convert: Convert = unchanged  # moves whole rows, so it treats values and packed bytes alike
    plus_one: str = ""  # parameters whose name ends so are stored one larger
    transposed: tuple[str, ...] = ()  # parameters whose name ends so are stored transposed
    extra: Callable[[Any], Mapping[str, np.ndarray]] = field(default=lambda config: {})  # tensors that are no weights
    loads_as: str = ""  # the class, where files do not tell it from another that computes the same

    def build(self) -> Any:
        """The model with random weights, wide enough apart that any mistake shows."""
        torch.manual_seed(0)
        config = getattr(transformers, self.config_class)(**self.config)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                is_norm = parameter.ndim == 1 and name.endswith("weight")
                parameter.normal_(mean=1.0 if is_norm and not self.plus_one else 0.0, std=0.3 if is_norm else 0.15)
        return model


def write(
    case: Case,
    model: Any,
    path: Path,
    formats: Callable[[str, int], Format],
    change: Callable[[dict[str, Any]], Any] = lambda keys: None,
    **options: Any,
) -> None:
    """The model as a GGUF file.

    `formats` picks a format by parameter name and row width; `change` may edit the keys in place; `options` are
    GGUFWriter's.
    """
    writer = gguf.GGUFWriter(path, case.architecture, **options)
    keys = dict(case.keys(model.config))
    change(keys)
    for method, value in keys.items():
        getattr(writer, method)(value)
    for name, tensor in case.extra(model.config).items():
        writer.add_tensor(name, tensor)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[case.architecture], model.config.num_hidden_layers)
    parameters = {name: pack(case, name, parameter, formats) for name, parameter in model.named_parameters()}
    for parameter_name, (rows, format) in case.convert(model.config, parameters).items():
        name = names.get_name(parameter_name, try_suffixes=(".weight", ".bias")) or parameter_name
        assert name.startswith(("blk.", "token_embd.", "position_embd.", "output")), f"{parameter_name} has no name"
        writer.add_tensor(name, np.ascontiguousarray(rows), raw_dtype=format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pack(case: Case, name: str, parameter: torch.Tensor, formats: Callable[[str, int], Format]) -> Rows:
    """A parameter's rows as they will lie in the file; the parameter takes the values these decode to."""
    values = parameter.detach().numpy()
    if case.plus_one and name.endswith(case.plus_one):
        values = values + np.float32(1)
    transposed = bool(case.transposed) and name.endswith(case.transposed)
    if transposed:
        values = np.ascontiguousarray(values.swapaxes(-1, -2))
    format = formats(name, values.shape[-1]) if _is_matrix(name, values) else Format.F32
    packed, decoded = quantize(values, format)
    if format != Format.F32:
        parameter.data.copy_(torch.from_numpy(decoded.swapaxes(-1, -2) if transposed else decoded))
    return packed, format


def _is_matrix(name: str, values: np.ndarray) -> bool:
    return values.ndim > 1 and "norm" not in name and "bias" not in name and "router" not in name


def quantize(values: np.ndarray, format: Format) -> tuple[np.ndarray, np.ndarray]:
    """(packed rows, what they decode to); for Q4_K, which the package only decodes, blocks of random numbers."""
    if format == Format.F32:
        return values, values
    packed = _random_q4_k(values.shape) if format == Format.Q4_K else gguf.quants.quantize(values, format)
    return packed, gguf.quants.dequantize(packed, format)


def _random_q4_k(shape: tuple[int, ...]) -> np.ndarray:
    """Blocks of 256: float16 scale and offset scale, 12 bytes of 6-bit scales and offsets, 128 of 4-bit numbers."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // 256, 144), dtype=np.uint8)
    scales = np.array([0.0008, 0.004], dtype=np.float16)
    blocks[..., :4] = scales.view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def float32(name: str, width: int) -> Format:
    return Format.F32


def mixed(name: str, width: int) -> Format:
    """Q4_K where rows allow it, else the four simple formats by turns, so that tensors that belong together differ."""
    if width % 256 == 0:
        return Format.Q4_K
    if width % 32:
        return Format.F16
    return (Format.Q8_0, Format.Q4_1, Format.Q5_0, Format.Q5_1)[sum(name.encode()) % 4]


def logits(model: Any, length: int = 24) -> torch.Tensor:
    """float32 [2, length, vocabulary] for the same random tokens each time."""
    tokens = torch.randint(0, model.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(tokens).logits


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest of `b`."""
    return ((a - b).abs().max() / b.abs().max()).item()
