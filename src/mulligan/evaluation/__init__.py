"""Accuracy against attempts, pass@k, and intervals for both. Torch-free: a player is handed in."""

from mulligan.evaluation.accuracy import Evaluation, Player, compare_accuracy, evaluate, num_dialogues
from mulligan.evaluation.attempts import AttemptFigures, Rate, parse_attempts
from mulligan.evaluation.intervals import Interval, bootstrap_mean, bootstrap_ratio, bootstrap_seeds, paired_difference
from mulligan.evaluation.passk import pass_at_k
from mulligan.evaluation.results import dialogue_table, eval_json, read_evaluation, write_evaluation

__all__ = [
    "AttemptFigures",
    "Evaluation",
    "Interval",
    "Player",
    "Rate",
    "bootstrap_mean",
    "bootstrap_ratio",
    "bootstrap_seeds",
    "compare_accuracy",
    "dialogue_table",
    "eval_json",
    "evaluate",
    "num_dialogues",
    "paired_difference",
    "parse_attempts",
    "pass_at_k",
    "read_evaluation",
    "write_evaluation",
]
