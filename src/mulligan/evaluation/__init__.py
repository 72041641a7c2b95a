"""Accuracy against attempts, pass@k, what the failed attempts brought, and intervals for all of it. Torch-free: a player is handed in."""

from mulligan.evaluation.accuracy import Player, evaluate, num_dialogues
from mulligan.evaluation.attempts import AttemptFigures, Rate, parse_attempts
from mulligan.evaluation.controls import ControlFigures, FalseWrong, control_faults
from mulligan.evaluation.evaluation import Evaluation, RivalFigures
from mulligan.evaluation.intervals import Interval, bootstrap_mean, bootstrap_ratio, bootstrap_statistics, paired_difference
from mulligan.evaluation.kept import KeptPlays
from mulligan.evaluation.passk import pass_at_k
from mulligan.evaluation.power import Power, detectable_difference, problems_needed
from mulligan.evaluation.results import dialogue_table, eval_json, read_evaluation, remove_evaluation, settings_of, write_evaluation
from mulligan.evaluation.rivals import Rival, read_rivals
from mulligan.evaluation.samples import SampleFigures, fold_of
from mulligan.evaluation.tokens import EqualTokens
from mulligan.evaluation.values import ProblemValues, read_values

__all__ = [
    "AttemptFigures",
    "ControlFigures",
    "EqualTokens",
    "Evaluation",
    "FalseWrong",
    "Interval",
    "KeptPlays",
    "Player",
    "Power",
    "ProblemValues",
    "Rate",
    "Rival",
    "RivalFigures",
    "SampleFigures",
    "bootstrap_mean",
    "bootstrap_ratio",
    "bootstrap_statistics",
    "control_faults",
    "detectable_difference",
    "dialogue_table",
    "eval_json",
    "evaluate",
    "fold_of",
    "num_dialogues",
    "paired_difference",
    "parse_attempts",
    "pass_at_k",
    "problems_needed",
    "read_evaluation",
    "read_rivals",
    "read_values",
    "remove_evaluation",
    "settings_of",
    "write_evaluation",
]
