"""GGUF files as transformers models. Importing this imports no optional package."""

from .loading import Unused, load_config, load_into, load_model, load_state_dict
from .meta import EmptyWeights
from .tokenizer import load_tokenizer

__all__ = ["EmptyWeights", "Unused", "load_config", "load_into", "load_model", "load_state_dict", "load_tokenizer"]
