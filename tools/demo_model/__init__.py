"""The parts of make_demo_model.py: the story grammar, the tokenizer, the training loop and the GGUF writer."""
