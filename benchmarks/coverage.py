"""How often the 95 % intervals of an arm's mean, and of a difference between two arms, hold the truth, over simulated experiments: `python -m benchmarks.coverage`.

Problems of mixed difficulty; seeds whose skill varies by what both arms of a seed share (a good or a bad warm-up) and by what each arm of it has for
itself. Seeds are drawn together (`joint_seeds`) or each arm's by themselves. docs/looking.md says what came of it.
"""

from __future__ import annotations

import itertools

import numpy as np

from mulligan.evaluation import compare
from mulligan.evaluation.compare import differences, means

EXPERIMENTS, RESAMPLES = 200, 2_000  # of many experiments the share that holds is the same with more resamples
SEEDS, PROBLEMS = (2, 3, 5, 8), (60, 300)
SHARED, OWN = (0.0, 0.1), (0.0, 0.03, 0.1, 0.2)


def experiment(rng: np.random.Generator, seeds: int, problems: int, shared: float, own: float) -> list[np.ndarray]:
    """Two arms that are equally good in truth, each `_SPC` with one column: solved or not."""
    difficulty_P = 1 / (1 + np.exp(-rng.normal(0, 1.2, problems)))
    warm_up_S = rng.normal(0, shared, seeds)
    chances = [np.clip(difficulty_P + (warm_up_S + rng.normal(0, own, seeds))[:, None], 0.01, 0.99) for _ in range(2)]
    return [(rng.random((seeds, problems)) < chance_SP).astype(float)[:, :, None] for chance_SP in chances]


def main() -> None:
    compare.enough_resamples = lambda draws: RESAMPLES
    print("| seeds | problems | sd shared, points | sd of each arm, points | mean: holds, % | width, points | apart: holds, % | width, points | together: holds, % | width, points |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for seeds, problems, shared, own in itertools.product(SEEDS, PROBLEMS, SHARED, OWN):
        rng = np.random.default_rng([seeds, problems, round(100 * shared), round(100 * own)])
        arms = [experiment(rng, seeds, problems, shared, own) for _ in range(EXPERIMENTS)]
        # Skills and difficulties lie evenly about a half, and so do the arms' true accuracies.
        kinds = [(0.5, [means([a], seed=i)[0] for i, (a, _) in enumerate(arms)])]
        kinds += [(0.0, [differences([a], [b], joint_seeds=joint, seed=i)[0] for i, (a, b) in enumerate(arms)]) for joint in (False, True)]
        cells = []
        for truth, found in kinds:
            cells += [f"{100 * np.mean([one.low <= truth <= one.high for one in found]):.0f}", f"{100 * np.mean([one.width for one in found]):.1f}"]
        print(f"| {seeds} | {problems} | {100 * shared:.0f} | {100 * own:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
