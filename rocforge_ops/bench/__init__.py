"""Benchmarks of the operators: `rocforge bench`, and the scripts of the source tree's benchmarks folder."""
