"""Tables, figures and sentences made from evaluations. Nothing here computes a result; matplotlib loads only with `figures`."""

from mulligan.report.summary import quickstart_sentences
from mulligan.report.tables import (
    TextTable,
    attempts_table,
    comparison_table,
    controls_table,
    equal_tokens_table,
    evaluation_table,
    evaluation_tables,
    references_table,
)

__all__ = [
    "TextTable",
    "attempts_table",
    "comparison_table",
    "controls_table",
    "equal_tokens_table",
    "evaluation_table",
    "evaluation_tables",
    "quickstart_sentences",
    "references_table",
]
