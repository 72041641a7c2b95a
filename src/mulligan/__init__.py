"""mulligan: teach language models to learn from their failures (multi-attempt reinforcement learning)."""

__version__ = "0.1.0"
