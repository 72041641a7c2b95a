"""Tables, figures and sentences made from evaluations. Nothing here computes a result; matplotlib loads only with `figures`."""

from mulligan.report.summary import quickstart_sentences
from mulligan.report.tables import TextTable, comparison_table, evaluation_table

__all__ = ["TextTable", "comparison_table", "evaluation_table", "quickstart_sentences"]
