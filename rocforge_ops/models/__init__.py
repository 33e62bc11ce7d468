"""GGUF files as transformers models. Importing this imports no optional package."""

from .loading import Unused, load_config, load_into, load_model, load_state_dict
from .tokenizer import load_tokenizer

__all__ = ["Unused", "load_config", "load_into", "load_model", "load_state_dict", "load_tokenizer"]
