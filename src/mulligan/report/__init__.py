"""Tables, figures and sentences made from evaluations. Nothing here computes a result; matplotlib loads only with `figures`."""

from mulligan.report.summary import quickstart_sentences
from mulligan.report.tables import (
    TextTable,
    comparison_table,
    controls_table,
    equal_tokens_table,
    evaluation_table,
    evaluation_tables,
    references_table,
)

__all__ = [
    "TextTable",
    "comparison_table",
    "controls_table",
    "equal_tokens_table",
    "evaluation_table",
    "evaluation_tables",
    "quickstart_sentences",
    "references_table",
]
