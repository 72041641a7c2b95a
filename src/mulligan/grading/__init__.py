"""Graders: an attempt's text in, a verdict out. Fast paths in the process itself; the rest in workers that can be killed."""

from mulligan.grading.extract import extract_boxed
from mulligan.grading.grader import Grader, RoutingGrader, grade_answer, grade_text, make_grader
from mulligan.grading.pairs import Pair, grade_pairs

__all__ = ["Grader", "Pair", "RoutingGrader", "extract_boxed", "grade_answer", "grade_pairs", "grade_text", "make_grader"]
