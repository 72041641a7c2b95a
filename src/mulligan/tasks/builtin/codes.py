"""`builtin:codes`: bulls and cows. A hidden code of letters; a bull is a right letter in its place, a cow a right letter elsewhere.

3 pegs of 6 colours are 120 codes without a letter twice (the default), or 216 with `distinct=0`. Guessing at random among the codes that fit
every hint so far solves 21 / 60 / 92 % of the 216 within 3 / 4 / 5 attempts, and 34 / 88 / 99.9 % of the 120. Fewer pegs or
colours make an easier lesson (`pegs=2&colours=4`). With `held_out=4` four of the codes are never hidden in training.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Literal

from mulligan.errors import ConfigError
from mulligan.tasks.builtin.answers import boxed_answer, by_hash, check_count, judged, no_answer
from mulligan.tasks.builtin.codebreaking import Codes
from mulligan.tasks.builtin.strategies import BEST, INDEPENDENT, Ceilings, drawn_of, shows
from mulligan.tasks.builtin.vocabulary import spaced
from mulligan.tasks.problems import make_problem
from mulligan.types import Problem, Verdict

GRADER = "mulligan.tasks.builtin.codes:grade"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOKEN_COLOURS = 6
"""The vocabulary of the tiny models has letters up to F."""
_INVALID = {"bulls": "0", "cows": "0", "hint": "invalid"}


def generate(
    *,
    n: int | None = None,
    split: Literal["train", "seen", "test"] = "train",
    seed: int = 0,
    pegs: int = 3,
    colours: int = 6,
    distinct: bool = True,
    held_out: int = 0,
    style: Literal["tokens", "words"] = "tokens",
    source: str = "builtin:codes",
) -> list[Problem]:
    """Hidden codes of `pegs` letters out of `colours`; `distinct`: no letter twice.

    Args:
        n: train: random draws (20,000 unless given); else the first n codes (all unless given).
        split: train; test: every code once, in a fixed shuffled order, with `held_out` only those; seen: the others once each.
        seed: of the draws.
        held_out: how many codes, the first of that order, are never hidden on the train split. The question does not say which, and the
            warm-up's guesses are drawn from all codes.
        style: tokens (for tiny models) or words (for language models).
        source: what to write into `Problem.source`.

    Raises:
        ConfigError: sizes that give no code or too many, or no code left to train on.
    """
    check_count(n)
    _check_size(pegs, colours, distinct, style)
    letters = LETTERS[:colours]
    meta: dict[str, Any] = {"pegs": pegs, "colours": colours, "distinct": distinct}
    question = _question(pegs, letters, distinct, style)
    size = _number_of_codes(pegs, colours, distinct)
    if not 0 <= held_out < size:
        raise ConfigError(f"held_out={held_out}: give from 0 to {size - 1} of the {size} codes")
    every = itertools.permutations(letters, pegs) if distinct else itertools.product(letters, repeat=pegs)
    codes = by_hash(map("".join, every), "codes") if split != "train" or held_out else []
    if split != "train":
        chosen = codes[held_out:] if split == "seen" else codes[: held_out or None]
        return [make_problem(question, code, GRADER, source, meta) for code in chosen[:n]]
    rng, kept = random.Random(f"codes/{split}/{seed}"), codes[held_out:]
    draws = (rng.choice(kept) if held_out else _draw(letters, pegs, distinct, rng) for _ in range(n or 20_000))
    return [make_problem(question, code, GRADER, source, meta | {"draw": index}) for index, code in enumerate(draws)]


def _number_of_codes(pegs: int, colours: int, distinct: bool) -> int:
    return math.perm(colours, pegs) if distinct else colours**pegs


def _check_size(pegs: int, colours: int, distinct: bool, style: str) -> None:
    most = TOKEN_COLOURS if style == "tokens" else len(LETTERS)
    if not 2 <= colours <= most:
        raise ConfigError(f"colours={colours} must be from 2 to {most} with style={style}")
    if pegs < 1 or colours**pegs > 1_000_000:
        raise ConfigError(f"pegs={pegs}, colours={colours}: give at least 1 peg and at most a million codes")
    if distinct and pegs > colours:
        raise ConfigError(f"distinct=1 needs at least as many colours as pegs; raise colours={colours} or lower pegs={pegs}")


def _question(pegs: int, letters: str, distinct: bool, style: str) -> str:
    if style == "tokens":
        return f"code {pegs} {len(letters)}" + (" distinct" if distinct else "")
    repeats = "no letter stands twice" if distinct else "letters may repeat"
    return f"A secret code has {pegs} letters, each one of {spaced(letters)}; {repeats}. Guess the code, written without spaces."


def _draw(letters: str, pegs: int, distinct: bool, rng: random.Random) -> str:
    return "".join(rng.sample(letters, pegs) if distinct else rng.choices(letters, k=pegs))


def bulls_and_cows(code: str, guess: str) -> tuple[int, int]:
    """Letters right in place, and right letters out of place (each letter of the code counted once)."""
    bulls = sum(a == b for a, b in zip(code, guess, strict=True))
    return bulls, (Counter(code) & Counter(guess)).total() - bulls


def grade(problem: Problem, text: str) -> Verdict:
    """Fields `bulls`, `cows` and `hint` (`2 bulls 1 cows`); `invalid` for no code, a wrong length or an unknown letter."""
    answer = boxed_answer(text)
    if answer is None:
        return no_answer(_INVALID)
    guess = answer.upper()
    if len(guess) != problem.meta["pegs"] or not set(guess) <= set(LETTERS[: problem.meta["colours"]]):
        return judged(False, answer, _INVALID)
    bulls, cows = bulls_and_cows(problem.answer, guess)
    return judged(guess == problem.answer, guess, {"bulls": str(bulls), "cows": str(cows), "hint": f"{bulls} bulls {cows} cows"})


def demonstrate(problem: Problem, rng: random.Random) -> str:
    """A code drawn uniformly from all that are possible at the start."""
    meta = problem.meta
    code = _draw(LETTERS[: meta["colours"]], meta["pegs"], meta["distinct"], rng)
    return f"\\boxed{{{spaced(code)}}}"


def ceilings(problems: Sequence[Problem], attempts: Sequence[int], shown: Collection[str] | None = frozenset()) -> Ceilings:
    """Known where every possible code is hidden once (the test split) and there are at most `codebreaking.MOST` ways to guess.

    Where the feedback shows the hint (or bulls and cows), the best possible is that of the best strategy, as far as it can be computed
    (see `Codes.best`); with the verdict alone it is exclusion. Beside it stands what guessing at random among the codes that fit
    every hint so far expects: consistent, but no planning.
    """
    meta = problems[0].meta
    pegs, colours, distinct = meta["pegs"], meta["colours"], meta["distinct"]
    size = _number_of_codes(pegs, colours, distinct)
    if len(problems) != size or len({p.answer for p in problems}) != size:
        return {}
    exclusion = {k: min(k, size) / size for k in attempts}
    found: Ceilings = {INDEPENDENT: {k: drawn_of(size, k) for k in attempts}}
    if not (shows(shown, "hint") or shows(shown, "bulls", "cows")):
        # part of the hint: better than exclusion, by how much is not known
        return found | ({} if set(shown or ()) & {"bulls", "cows"} else {BEST: exclusion})
    task = Codes.of(pegs, colours, distinct)
    if task is None:
        return found | {"exclusion, with the verdict alone": exclusion}
    return {
        BEST: {k: solved / size for k in attempts if (solved := task.best(k)) is not None},
        **found,
        "random among the codes that fit": {k: solved / size for k in attempts if (solved := task.fitting(k)) is not None},
        "exclusion, with the verdict alone": exclusion,
    }
