"""Problems: from files, the Hugging Face Hub, reasoning-gym and our own generators, all named by one source string."""

from mulligan.tasks.boxed import last_boxed
from mulligan.tasks.problems import ProblemSet, SetAside, content_id, grade_answer, make_problem, self_check
from mulligan.tasks.sources import ceilings, demonstrator, load_problems

__all__ = ["ProblemSet", "SetAside", "ceilings", "content_id", "demonstrator", "grade_answer", "last_boxed", "load_problems", "make_problem", "self_check"]
