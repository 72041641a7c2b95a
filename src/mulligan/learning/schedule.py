"""The learning rate over a run, as a pure function of how much of the run is done."""

from __future__ import annotations

import math

from mulligan.config import OptimizerConfig


def learning_rate(progress: float, config: OptimizerConfig, total_steps: int) -> float:
    """The factor, in [0, 1], by which every peak learning rate is multiplied in the step that begins at `progress`.

    Linear warm-up, then the peak, then a fall to `config.final` that spans the last `config.decay` share of the run, or what
    the warm-up leaves of it (so `decay = 1` falls from the end of the warm-up on). The first step of a warm-up of w steps
    uses 1/w, not 0: no step is wasted.

    Args:
        progress: share of the run done before this step, in [0, 1]: by steps or by tokens, as the run is measured.
        total_steps: steps of the whole run (an estimate, where it is measured in tokens).
    """
    progress = min(max(progress, 0.0), 1.0)
    warmup_steps = config.warmup if config.warmup >= 1 else config.warmup * total_steps
    steps_done = progress * total_steps
    if steps_done < warmup_steps:
        return min(1.0, (steps_done + 1) / warmup_steps)
    if config.schedule == "constant":
        return 1.0
    start = max(1.0 - config.decay, min(warmup_steps / total_steps, 1.0))
    if progress <= start:
        return 1.0
    fallen = (progress - start) / (1.0 - start)
    share = 1.0 - fallen if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * fallen))
    return config.final + (1.0 - config.final) * share
