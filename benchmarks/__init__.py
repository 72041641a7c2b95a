"""Benchmarks: mulligan beside other ways to do the same work, on the same prompts, tokens, model and threads. `python -m benchmarks --help`."""
