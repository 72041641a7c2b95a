"""pass@k: the chance that at least one of k independent samples is correct, estimated without bias from n >= k samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pass_at_k(n_P: ArrayLike, c_P: ArrayLike, k: int) -> NDArray[np.float64]:
    """1 - C(n - c, k) / C(n, k) for each problem (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1).

    The quotient of binomials is the product over j < k of (n - c - j) / (n - j): factors in [0, 1], so that nothing overflows,
    and a factor that would turn negative (fewer than k failures) is a true zero.

    Args:
        n_P: samples drawn per problem (an array, or one number for all).
        c_P: how many of them were correct.
        k: samples allowed.

    Raises:
        ValueError: k below 1 or above the number of samples of some problem; c outside 0..n.
    """
    c_P = np.atleast_1d(np.asarray(c_P, dtype=np.int64))
    n_P = np.broadcast_to(np.asarray(n_P, dtype=np.int64), c_P.shape)
    if ((c_P < 0) | (c_P > n_P)).any():
        raise ValueError("the number of correct samples must lie between 0 and the number of samples")
    if k < 1:
        raise ValueError(f"pass@{k}: k must be at least 1")
    if (n_P < k).any():
        raise ValueError(f"pass@{k} needs at least {k} samples per problem, got {int(n_P.min())}")
    draws = np.arange(k)
    failures_Pk = np.maximum(n_P[:, None] - c_P[:, None] - draws, 0)
    return 1.0 - np.prod(failures_Pk / (n_P[:, None] - draws), axis=1)
