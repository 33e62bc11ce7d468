"""All known architectures."""

from __future__ import annotations

from ..architecture import Architecture
from ..header import Header
from . import cohere, falcon, gemma, glm, gpt, gpt_oss, llama, nemotron, olmo, phi, qwen, stablelm

ARCHITECTURES: tuple[Architecture, ...] = (
    *llama.ARCHITECTURES,
    *gemma.ARCHITECTURES,
    *qwen.ARCHITECTURES,
    *gpt.ARCHITECTURES,
    *phi.ARCHITECTURES,
    *glm.ARCHITECTURES,
    *falcon.ARCHITECTURES,
    *nemotron.ARCHITECTURES,
    *olmo.ARCHITECTURES,
    *cohere.ARCHITECTURES,
    *stablelm.ARCHITECTURES,
    *gpt_oss.ARCHITECTURES,
)


def find(file: Header) -> Architecture:
    """The description of the file's model; ValueError that says what the file is when there is none."""
    for architecture in ARCHITECTURES:
        if architecture.gguf == file.architecture and architecture.when(file):
            return architecture
    known = ", ".join(dict.fromkeys(architecture.gguf for architecture in ARCHITECTURES))
    kind = file.file.metadata.get("general.type", "model")
    name = file.file.metadata.get("general.name")
    what = f"a {kind} of architecture {file.architecture or '(none given)'}" + (f", {name!r}" if name else "")
    raise ValueError(f"the file holds {what}, for which no transformers class is known here; known are {known}")
