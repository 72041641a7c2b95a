"""Bulls and cows by computation: how many codes the best strategy solves within k attempts, and guessing at random among those that fit.

Write C for the codes that are still possible and classes(g) for what C falls into by the answers to a guess g. The most that k further
guesses solve is

    best(C, 1) = 1        best(C, k) = max over guesses g of (1 if g is in C) + sum over the other classes c of best(c, k - 1)

and what guessing uniformly among C solves on average is

    fitting(C, 1) = 1     fitting(C, k) = mean over g in C of 1 + sum over the other classes c of fitting(c, k - 1).

Any guess is allowed, also one that cannot be the code (a letter twice, where codes have none). The first guess is tried once per
pattern of equal letters: renaming letters and changing places maps the codes onto themselves.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MOST = 1296
"""Ways to guess (4 pegs of 6 colours) above which nothing is computed: every guess is held against every code."""
FEW = 216
"""Ways to guess up to which strategies are followed for `DEEP` attempts; beyond it for `SHALLOW`."""
SHALLOW, DEEP = 3, 4

Subset = tuple[int, ...]
"""Places of codes in the list of all, rising."""


class Codes:
    """All codes of one size, all guesses, and the answer to each guess under each code."""

    def __init__(self, pegs: int, colours: int, distinct: bool):
        guesses = list(itertools.product(range(colours), repeat=pegs))
        codes = [g for g in guesses if not distinct or len(set(g)) == pegs]
        place = {guess: i for i, guess in enumerate(guesses)}
        self.every: Subset = tuple(range(len(codes)))
        self.own = [place[code] for code in codes]
        """The guess that is code i."""
        self.answers = _answers(np.array(guesses), np.array(codes), pegs, colours)
        """Number of the answer to [guess, code]."""
        self.bits = np.left_shift(np.int64(1), self.answers)
        self.few = len(guesses) <= FEW
        self.first_guesses = {_pattern(guess): i for i, guess in enumerate(guesses)}
        """One guess of each pattern."""
        self.first_codes = {_pattern(code): place[code] for code in codes}
        self.alike = Counter(map(_pattern, codes))
        """How many codes have a pattern."""
        self._fits: dict[tuple[Subset, int], float] = {}

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def of(pegs: int, colours: int, distinct: bool) -> Codes | None:
        """None where there is too much to compute."""
        # an answer has to be a bit of 63: there are at most (pegs + 1)(pegs + 2)/2 answers
        return Codes(pegs, colours, distinct) if colours**pegs <= MOST and (pegs + 1) * (pegs + 2) <= 126 else None

    # ------------------------------------------------------------------------------------------------------- the best strategy

    def best(self, k: int) -> int | None:
        """Codes that the best strategy solves within k attempts. With many attempts it is not searched for, and known only if a plain
        strategy (always the guess that leaves most classes) solves all codes; otherwise None."""
        if k <= (DEEP if self.few else SHALLOW):
            firsts = self.first_guesses.values()
            return self._best(self.every, k) if k < 3 else max(self._after(guess, self.every, k) for guess in firsts)
        return len(self.every) if self._plain(self.every, k) == len(self.every) else None

    def _best(self, codes: Subset, k: int) -> int:
        if k == 1 or len(codes) <= k:
            return min(k, len(codes))
        if k == 2:
            return max(self._classes_left(codes))
        most = 0
        for guess in range(len(self.bits)):
            most = max(most, self._after(guess, codes, k))
            if most == len(codes):
                break
        return most

    def _after(self, guess: int, codes: Subset, k: int) -> int:
        return sum(1 if self.own[rest[0]] == guess else self._best(rest, k - 1) for rest in self._classes(guess, codes))

    def _plain(self, codes: Subset, k: int) -> int:
        if k == 1 or len(codes) <= k:
            return min(k, len(codes))
        worth = [2 * count for count in self._classes_left(codes)]
        for code in codes:  # among equals, a guess that may be the code
            worth[self.own[code]] += 1
        guess = worth.index(max(worth))
        return sum(1 if self.own[rest[0]] == guess else self._plain(rest, k - 1) for rest in self._classes(guess, codes))

    # ------------------------------------------------------------------------------------------- at random among those that fit

    def fitting(self, k: int) -> float | None:
        """Codes that are solved on average within k attempts; None with many ways to guess and more than `SHALLOW` attempts."""
        if k == 1:
            return 1.0
        if k > SHALLOW and not self.few:
            return None
        expected = sum(self.alike[pattern] * self._fitting_after(guess, self.every, k) for pattern, guess in self.first_codes.items())
        return expected / len(self.every)

    def _fitting(self, codes: Subset, k: int) -> float:
        if k == 1 or len(codes) <= k:  # every guess may be the code, so that each takes at least one code away
            return float(min(k, len(codes)))
        if (known := self._fits.get((codes, k))) is None:
            own = [self.own[code] for code in codes]
            known = sum(self._classes_left(codes, own) if k == 2 else (self._fitting_after(guess, codes, k) for guess in own)) / len(codes)
            self._fits[codes, k] = known
        return known

    def _fitting_after(self, guess: int, codes: Subset, k: int) -> float:
        return sum(1.0 if self.own[rest[0]] == guess else self._fitting(rest, k - 1) for rest in self._classes(guess, codes))

    # ---------------------------------------------------------------------------------------------------------------- classes

    def _classes(self, guess: int, codes: Subset) -> Iterator[Subset]:
        """The codes by their answer to a guess; the guess itself, if it is among them, is alone in its class."""
        found: dict[int, list[int]] = {}
        for code, answer in zip(codes, self.answers[guess, list(codes)].tolist(), strict=True):
            found.setdefault(answer, []).append(code)
        return map(tuple, found.values())

    def _classes_left(self, codes: Subset, guesses: list[int] | None = None) -> list[int]:
        """For each guess (by default all), how many classes the codes fall into."""
        bits = self.bits[:, list(codes)] if guesses is None else self.bits[np.ix_(guesses, list(codes))]
        return [answers.bit_count() for answers in np.bitwise_or.reduce(bits, axis=1).tolist()]


def _answers(guesses: NDArray[np.int64], codes: NDArray[np.int64], pegs: int, colours: int) -> NDArray[np.int64]:
    """The answers, numbered from 0, of every guess (rows) under every code (columns)."""
    bulls, common = np.zeros((2, len(guesses), len(codes)), dtype=np.int64)
    for peg in range(pegs):
        bulls += guesses[:, None, peg] == codes[None, :, peg]
    for colour in range(colours):
        common += np.minimum((guesses == colour).sum(axis=1)[:, None], (codes == colour).sum(axis=1)[None, :])
    _, numbers = np.unique((bulls * (pegs + 1) + common).ravel(), return_inverse=True)
    return numbers.reshape(bulls.shape).astype(np.int64)


def _pattern(code: tuple[int, ...]) -> tuple[int, ...]:
    """How often each of its letters stands in a code, most frequent first."""
    return tuple(sorted(Counter(code).values(), reverse=True))
