"""Reads compiled AMD kernels: registers, instructions, the path that counts, and what a GPU could make of it."""
