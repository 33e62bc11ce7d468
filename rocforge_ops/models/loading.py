"""Loads GGUF files: as plain tensors, into the transformers class of their architecture, or into any such module."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rocforge_ops.attention import register_attention
from rocforge_ops.gguf import GGUFFile

from .architecture import Architecture
from .architectures import find
from .header import Header
from .meta import EmptyWeights
from .packed import Packer
from .plan import Plan, Step, make_plan
from .progress import progress
from .require import require

logger = logging.getLogger(__name__)
StrPath = str | os.PathLike[str]

FLOAT16_WARNING = (
    "{} computes values above float16's largest (65504) and returns NaN in it, with any software: use bfloat16, the "
    "default, or float32"
)


DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Unused(NamedTuple):
    """What `load_into(..., strict=False)` left out."""

    missing: list[str]  # parameters of the module that the file has no tensors for
    unexpected: list[str]  # tensors of the file that the module has no use for


def load_state_dict(
    path: StrPath, dtype: torch.dtype = torch.float16, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """All tensors of a file, dequantised to `dtype` on `device`, under their GGUF names and in the file's own order.

    Needs no optional package. Rows stay as the converter arranged them; `load_model` puts them back.

    Raises:
        GGUFError: the file is malformed.
    """
    with GGUFFile(path) as file:
        return {tensor.name: tensor.dequantize(dtype, device) for tensor in progress(file.values())}


def load_config(path: StrPath) -> Any:
    """The transformers configuration of a file's model. Raises as `load_model` does."""
    with GGUFFile(path) as file:
        header = Header(file)
        return _config(header, find(header))


def load_model(
    path: StrPath,
    dtype: torch.dtype = torch.bfloat16,
    device: str | torch.device = "cpu",
    packed: bool = False,
    attn_implementation: str | None = "rocforge",
) -> Any:
    """A file's model as the ordinary transformers class of its architecture, in eval mode, ready to `.generate()`.

    Args:
        path: a GGUF file; of a split model, any of its parts.
        dtype: of the weights; with `packed` of those that are not packed, of embeddings and of computation. Gemma
            overflows in float16.
        device: where weights are dequantised and stay.
        packed: matrices stay in their GGUF blocks: linear layers become `rf.nn.QuantizedLinear`, embeddings
            `rf.nn.QuantizedEmbedding`, experts `rf.nn.QuantizedExperts`. On the CPU they are views of the mapped file.
        attn_implementation: any name transformers knows; "rocforge" is `mqa_attention`, or "sdpa" where the class
            takes no other attention than its own (Falcon). None takes what transformers prefers for the class.

    Raises:
        GGUFError: the file is malformed.
        ValueError: unknown architecture, missing key, or tensors that do not fit the class (all listed).
        ImportError: transformers or gguf is not installed.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    with GGUFFile(path) as file:
        header = Header(file)
        architecture = find(header)
        if dtype == torch.float16 and architecture.float16_overflows:
            warnings.warn(FLOAT16_WARNING.format(architecture.model_class), stacklevel=2)
        config = _config(header, architecture)
        if attn_implementation == "rocforge":
            register_attention()
            attn_implementation = "rocforge" if architecture.attention_interface else "sdpa"
        model = _empty_model(config, dtype, attn_implementation)
        plan = make_plan(header, architecture, model)
        plan.check(True, f"{os.fspath(path)} does not fit {architecture.model_class}")
        if unread := header.unread():
            logger.warning("%s has no use for %s", architecture.model_class, ", ".join(unread))
        _fill(model, plan, header, dtype, torch.device(device), packed)
        _set_generation_tokens(model, header)
    return model.to(device).eval()  # the buffers; all weights are there already


def load_into(
    module: nn.Module,
    path: StrPath,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    strict: bool = True,
    packed: bool = False,
) -> Unused:
    """A file's weights into a module the caller built: a transformers model of the file's architecture, or its base.

    Parameters are overwritten in place and keep their dtype and device. Parameters on the meta device are allocated: as
    `dtype` (None: their own) on `device` (None: the CPU). Configuration, buffers and mode are left as they are
    (`load_config` gives the file's configuration). With `packed`, linear layers, embeddings and experts are replaced as
    by `load_model`.

    Raises:
        ValueError: tensors that do not fit the module, all listed at once. Without `strict` only wrong shapes count;
            what is missing or unexpected is returned.
    """
    with GGUFFile(path) as file:
        header = Header(file)
        plan = make_plan(header, find(header), module)
        plan.check(strict, f"{os.fspath(path)} does not fit {type(module).__name__}")
        _fill(module, plan, header, dtype, torch.device("cpu" if device is None else device), packed)
    return Unused(plan.missing, plan.unexpected)


def _config(file: Header, architecture: Architecture) -> Any:
    config_class = getattr(require("transformers"), architecture.model_class).config_class
    fields = {name: _value(file, source) for name, source in architecture.config.items()}
    if "head_dim" not in fields and file.head_dim * file.heads != file.width:
        raise ValueError(f"heads of {file.head_dim} elements, which {config_class.__name__} cannot express")
    try:
        config = config_class(**fields, architectures=[architecture.model_class])
    except require("huggingface_hub.errors").StrictDataclassError as error:
        raise ValueError(f"{config_class.__name__} refuses what the file says: {error}") from error
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, fields[name])  # some classes put their own ids where None was given
    return config


def _value(file: Header, source: Any) -> Any:
    return file.get(source) if isinstance(source, str) else source(file)


def _empty_model(config: Any, dtype: torch.dtype, attn_implementation: str | None) -> Any:
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    with EmptyWeights():
        return require("transformers").AutoModelForCausalLM.from_config(config, dtype=dtype, **options)


class _Item(NamedTuple):
    owner: str  # a module
    steps: dict[str, Step]  # how its parameters are made
    nbytes: int


def _items(plan: Plan, file: Header) -> list[_Item]:
    """The steps by module, in the file's order."""
    position = {name: index for index, name in enumerate(file.file)}
    steps_of: dict[str, dict[str, Step]] = {}
    for step in sorted(plan.steps, key=lambda step: position[step.tensors[0]]):
        owner, _, name = step.parameter.rpartition(".")
        steps_of.setdefault(owner, {})[name] = step
    return [
        _Item(owner, steps, sum(file.file[tensor].nbytes for step in steps.values() for tensor in step.tensors))
        for owner, steps in steps_of.items()
    ]


@torch.no_grad()
def _fill(
    module: nn.Module, plan: Plan, file: Header, dtype: torch.dtype | None, device: torch.device, packed: bool
) -> None:
    """Carries out the plan, module by module."""
    packer = Packer(module, file) if packed else None
    for owner, steps, _ in progress(_items(plan, file)):
        target = module.get_submodule(owner)
        like = target.get_parameter(next(iter(steps)))
        options = (dtype or like.dtype, device) if like.is_meta else (like.dtype, like.device)
        if packer is not None and packer.replace(owner, steps, *options):
            continue
        for name, step in steps.items():
            parameter = target.get_parameter(name)
            if parameter.is_meta:
                value = step.value(file, dtype or parameter.dtype, device).view(parameter.shape)
                setattr(target, name, nn.Parameter(value, requires_grad=parameter.requires_grad))
            else:
                parameter.copy_(step.value(file, parameter.dtype, parameter.device).view(parameter.shape))
    if packer is not None:
        packer.rename_ties()
    if (tie_weights := getattr(module, "tie_weights", None)) is not None:
        tie_weights()


def _set_generation_tokens(model: Any, file: Header) -> None:
    """Generation ends at the end of the text, of the turn or of the message."""
    ends = [id for name in ("eos", "eot", "eom") if (id := file.token_id(name)) is not None]
    generation = model.generation_config
    generation.bos_token_id = file.token_id("bos")
    generation.pad_token_id = file.token_id("padding")
    generation.eos_token_id = list(dict.fromkeys(ends)) if len(set(ends)) > 1 else next(iter(ends), None)
