"""The first thing that a report says: what was found, how sure it is, and what speaks against it. Computed; nulls are said plainly.

A difference counts only if its 95 % interval leaves 0 out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mulligan.evaluation import Interval
from mulligan.evaluation.arms import Arm, how_to_evaluate
from mulligan.evaluation.compare import MIN_SEEDS
from mulligan.evaluation.comparison import ACCURACY, GAIN, OVER_ALL, PASS
from mulligan.evaluation.faults import SMALL_SET
from mulligan.report.evidence import BEST_SAMPLER, SAMPLERS, Evidence, strongest, whose_list
from mulligan.report.rivals import is_own_model, same_models
from mulligan.report.tables import percent, points, points_of, share
from mulligan.tasks.builtin.strategies import LIST

Tone = Literal["yes", "partly", "no", "open"]

MUCH = 0.5
"""The share of the rise from which on a reader is told that a control keeps it."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure, large, with its interval."""

    label: str
    value: str
    interval: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    """`verdict` in a few words; `sentences` with the figures; `basis`: what the intervals rest on; `caveats`, the weightiest first."""

    verdict: str
    tone: Tone
    sentences: tuple[str, ...]
    basis: str
    caveats: tuple[str, ...]
    tiles: tuple[Tile, ...]

    def to_json(self) -> dict[str, Any]:
        tiles = [{"label": t.label, "value": t.value, "interval": t.interval, "note": t.note} for t in self.tiles]
        return {"verdict": self.verdict, "tone": self.tone, "sentences": self.sentences, "basis": self.basis, "caveats": self.caveats, "tiles": tiles}


@dataclass(frozen=True, slots=True)
class Findings:
    """The figures that the headline is made of, for one arm at K attempts in one place."""

    label: str
    place: str
    start: int
    """The fewest attempts that were evaluated, nearly always 1."""
    most: int
    """The most that were."""
    k: int
    first: Interval
    """Accuracy with `start` attempts."""
    last: Interval
    """Accuracy with `k` attempts."""
    rise: Interval | None
    """`last` - `first`; None: not known as a paired difference."""
    passed: Interval | None
    gain: Interval | None
    rivals: Mapping[str, Interval]
    """label -> accuracy@K - the rival's pass@K."""
    strongest: str | None
    """The one of `rivals` over which least is gained, of those that were drawn from in this place."""
    unsampled: tuple[str, ...]
    """Other arms' labels, evaluated here, of which pass@K is not known."""
    again: tuple[str, ...]
    """Labels among `rivals` that are the same models once more: evaluated otherwise."""
    unnamed: tuple[str, ...]
    """Labels among `given` of which it is not known which models they are."""
    given: tuple[str, ...]
    """Labels among `rivals` that are no arms: each seed's own evaluation was given their samples."""
    sampled_to: int
    """The largest number of independent samples for which pass@k is known; 0: none."""
    sampled: bool | None
    """Whether independent samples were drawn; None: of some seeds or sets, not of all."""
    named: bool
    """Whether a sentence has to say which problems it speaks of: there are several sets."""
    played: tuple[str, ...]
    """The controls."""
    blind: Interval | None
    """history-blind control: its difference to the normal dialogues at K."""
    kept: Interval | None
    """The share of the rise that the history-blind control keeps."""
    others: Interval | None
    """other-history control: its difference to the normal dialogues at K."""
    counted: Interval | None
    """The share of the rise that it keeps: what comes of the failures' number alone."""
    listed: Interval | None
    """`last` - what the best fixed list of K answers would solve, whatever the question; None: not known."""
    counted_gain: Interval | None
    """Its accuracy - the model's own pass@K."""
    untold: Interval | None
    """The share that is kept when it is asked again without a verdict."""

    @property
    def rose(self) -> bool | None:
        """True, False (it fell), or None: no clear change."""
        return _sign(self.rise) if self.rise else (None if self.first.overlaps(self.last) else self.last.mean > self.first.mean)

    @property
    def counts(self) -> bool:
        """Whether counting failures, another problem's, brings most of what is gained over drawing again; of the rise, where that is not known."""
        if self.counted_gain is None or self.gain is None:
            return self.counted is not None and self.counted.mean >= MUCH
        return self.counted_gain.low > 0 and self.counted_gain.mean >= MUCH * self.gain.mean

    @property
    def models(self) -> list[str]:
        """The rivals that are other models: computed samplers are none, and say nothing of what training did."""
        return [label for label in self.rivals if not label.startswith(tuple(SAMPLERS.values())) and label not in self.again]

    @property
    def better(self) -> list[str]:
        """The rivals that clearly solve more by drawing again."""
        return [label for label, difference in self.rivals.items() if difference.high < 0]

    @property
    def level(self) -> list[str]:
        """The rivals from which it is not clearly different."""
        return [label for label, difference in self.rivals.items() if difference.low <= 0 <= difference.high]


def make_headline(evidence: Evidence) -> Headline:
    """What the report's first lines say of its head arm."""
    found = find(evidence)
    if found is None:
        return _unevaluated(evidence.head)
    verdict, tone = _verdict(found)
    return Headline(verdict, tone, tuple(_sentences(found)), _basis(evidence, found), tuple(_caveats(evidence, found)), tuple(_tiles(found)))


def find(evidence: Evidence) -> Findings | None:
    """The head arm's findings at the trained budget (the largest that was evaluated, if that one was not); None without an evaluation."""
    arm, place = evidence.head, evidence.main
    accuracy = evidence.values(arm, ACCURACY, place) if place else {}
    if place is None or not accuracy:
        return None
    k = evidence.budget(arm, place)
    rivals = {label: by_k[k] for label, by_k in evidence.rivals(arm, place).items() if k in by_k}
    hardest = strongest(rivals)
    known = {*SAMPLERS.values(), *(other.label for other in evidence.arms)}
    given = {label: (label, place) for label in rivals if label not in known}
    if place in OVER_ALL:  # what an evaluation was given as rivals is known for each set, not over all
        of_sets = {(label, name): by_k[k] for name in evidence.over_all for label, by_k in evidence.rivals(arm, name).items() if label not in rivals and k in by_k}
        rivals |= {f"{label} on {name}": difference for (label, name), difference in of_sets.items()}
        given |= {f"{label} on {name}": (label, name) for label, name in of_sets if label not in known}
    own = {shown: is_own_model(arm, name, label) for shown, (label, name) in given.items()}
    played = evidence.controls(arm, place)
    kept = {name: evidence.kept(arm, place, name, k, min(accuracy)) for name in ("history_blind", "other_history", "verdict_hidden") if name in played}
    return Findings(
        label=arm.label,
        place=place,
        start=min(accuracy),
        most=max(accuracy),
        k=k,
        first=accuracy[min(accuracy)],
        last=accuracy[k],
        rise=evidence.rise(arm, place, k, min(accuracy)) if min(accuracy) < k else None,
        passed=evidence.values(arm, PASS, place).get(k),
        gain=evidence.values(arm, GAIN, place).get(k),
        rivals=rivals,
        strongest=hardest,
        unsampled=tuple(
            other.label for other in evidence.arms
            if other.label not in rivals and not same_models(arm, other) and (other.problem_sets if place in OVER_ALL else place in other.problem_sets)
        ),
        again=(*(other.label for other in evidence.arms if other is not arm and same_models(arm, other)), *(label for label, told in own.items() if told)),
        unnamed=tuple(label for label, told in own.items() if told is None),
        given=tuple(given),
        sampled_to=max(evidence.values(arm, PASS, place), default=0),
        sampled=_all_or_some([bool(figures.get("samples")) for m in arm.members for name, figures in m.problem_sets.items() if place in (name, *OVER_ALL)]),
        named=len(evidence.sets) > 1,
        played=tuple(played),
        blind=evidence.control_difference(arm, place, "history_blind").get(k) if "history_blind" in played else None,
        kept=kept.get("history_blind"),
        others=evidence.control_difference(arm, place, "other_history").get(k) if "other_history" in played else None,
        counted=kept.get("other_history"),
        listed=accuracy[k].above(listed[k].mean) if k in (listed := evidence.ceilings(place).get(LIST, {})) else None,
        counted_gain=evidence.control_gain(arm, place, "other_history").get(k) if "other_history" in played else None,
        untold=kept.get("verdict_hidden"),
    )


def _all_or_some(told: list[bool]) -> bool | None:
    """True: all; False: none; None: some."""
    return all(told) if all(told) or not any(told) else None


def _verdict(found: Findings) -> tuple[str, Tone]:
    if found.k == found.start:
        fewer = f"What further attempts bring is not known: it was not evaluated with fewer than {found.k}"
        return f"Evaluated with {_attempts(found.k)} only" if found.most == found.k else fewer, "open"
    if found.rose is None:
        return "No gain from further attempts is shown", "no"
    if not found.rose:
        return "Further attempts make it worse", "no"
    if found.gain is None:
        return "The model gains from further attempts; whether from its failures is not known", "open"
    if found.gain.high < 0:
        return "The model gains from further attempts, but less than drawing again would", "no"
    if found.gain.low <= 0:
        return "The model gains from further attempts, but not clearly more than by drawing again", "no"
    if found.better:
        return "The model gains more than by drawing again from itself, but a rival solves more by drawing again", "partly"
    if found.level:
        return "The model gains more than by drawing again from itself, but not clearly more than every rival does", "partly"
    if found.blind is None:
        return "The model gains more than by drawing again", "partly"
    if found.kept is None and found.blind.high < 0:
        return "The model gains more than by drawing again, and less when it cannot see its failures; what share of the rise is left then is not known", "partly"
    if found.kept is not None and found.kept.low >= MUCH and found.blind.high < 0:
        return "The model gains more than by drawing again, but mostly by a retry schedule, not by reading its failures", "partly"
    if found.blind.high >= 0 or (found.kept is not None and found.kept.high >= MUCH):
        return "The model gains more than by drawing again, but not clearly by reading its failures", "partly"
    if found.others is not None and found.others.high >= 0:
        return "The model gains more than by drawing again, but not clearly by reading its own failures: with another problem's it does as well", "partly"
    if found.counts:
        return "The model gains more than by drawing again, but mostly by counting its failures, not by reading them", "partly"
    if found.listed is not None and found.listed.low <= 0:
        return "The model gains more than by drawing again, and less when it cannot see its failures, but is not clearly better than a fixed list of answers", "partly"
    if not found.models:
        return "The model gains more than by drawing again from itself, and less when it cannot see its failures; no other model was compared", "partly"
    if found.unsampled:
        return "The model gains more than by drawing again, and less when it cannot see its failures; not every other model was sampled", "partly"
    return "The model learns from its failures: it gains more than by drawing again, and less when it cannot see them", "yes"


def _sentences(found: Findings) -> list[str]:
    where = f" ({found.place})" if found.named else ""
    if found.k == found.start:
        return [f"With {_attempts(found.k)} {found.label} solves {share(found.last)}{where}."]
    change = f"With {found.k} attempts instead of {found.start}, {found.label} solves {share(found.last)} of the questions instead of {share(found.first)}{where}"
    if found.rise is None:
        sentences = [f"{change}{'; the intervals overlap' if found.rose is None else ''}."]
    elif found.rose is None:
        sentences = [f"{change}: {points_of(found.rise)}, which is not clearly different from 0."]
    else:
        sentences = [f"{change}: {points_of(found.rise)}."]
    if found.passed and found.gain:
        drawn = f"Drawing {found.k} independent answers from the same model solves {share(found.passed)}"
        if _sign(found.gain) is None:
            sentences.append(f"{drawn}: seeing the failed attempts brings nothing that is clearly more, {points_of(found.gain)}.")
        else:
            said = ": the failed attempts bring" if found.gain.mean > 0 else ", more than the dialogues do:"
            sentences.append(f"{drawn}{said} {points_of(found.gain)}.")
    if (rival := found.strongest) is not None:
        difference = found.rivals[rival]
        unclear = ", which is not clearly different from 0" if _sign(difference) is None else ""
        sentences.append(f"Against {found.k} independent answers of the strongest rival, {rival}, the difference is {points_of(difference)}{unclear}.")
    return sentences


def _basis(evidence: Evidence, found: Findings) -> str:
    seeds = len(evidence.head.members)
    of = f"{len(evidence.over_all)} sets" if found.place in OVER_ALL else found.place
    over = f"{found.last.n:,} problem{'' if found.last.n == 1 else 's'} of {of}"
    resampled = f"{seeds} seeds × {over}" if seeds > 1 else f"{over}, one training seed"
    hulls = f" Against {' and '.join(found.given)}, whose samples each seed's evaluation was given, from the lowest to the highest bound of the seeds."
    return f"In brackets: 95 % intervals over {resampled}.{hulls if found.given and seeds > 1 else ''}"


def _caveats(evidence: Evidence, found: Findings) -> list[str]:
    caveats = []
    counted = f" ({points_of(found.counted_gain)} over its own pass@{found.k})" if found.counted_gain else ""
    controls = {
        "A model that cannot see its earlier attempts keeps {} of the rise: so much is a retry schedule, not learning from failure.": found.kept,
        f"Shown the failed attempts of another problem it keeps {{}} of the rise{counted}: so much comes of how many have failed, not of what they were.": found.counted,
        "Asked again without a verdict it keeps {} of the rise: so much needs no verdict.": found.untold,
    }
    for text, kept in controls.items():
        if kept is not None and kept.mean >= MUCH:
            caveats.append(text.format(f"{share(kept)} [{100 * kept.low:.0f}, {100 * kept.high:.0f}]"))
    how = {"clearly below": found.better, "not clearly above": found.level}
    unbeaten = [f"It is {what} {found.k} independent samples (pass@{found.k}) of {' and '.join(labels)}." for what, labels in how.items() if labels]
    if found.rose:
        caveats = _list_caveats(found) + caveats + unbeaten
    if found.last.n < SMALL_SET:
        what, width = ("rise", found.rise.width) if found.rise else ("accuracy", found.last.width)
        caveats.append(f"Only {found.last.n} problem{'' if found.last.n == 1 else 's'}: the interval of the {what} is {100 * width:.0f} points wide.")
    caveats += evidence.not_held_out(evidence.head, found.place)
    seeds = len(evidence.head.members)
    if seeds == 1:
        caveats.append("One training seed: the intervals say nothing of what another run would give.")
    elif seeds < MIN_SEEDS:
        caveats.append(f"{seeds} training seeds say little of what another would give.{_seed_by_seed(evidence, found)}")
    if found.gain is None and found.k > found.start:
        reasons = {True: "None of the independent samples could be graded", None: "Independent samples were not drawn of every seed and set", False: "No independent samples were drawn"}
        none = reasons[found.sampled]
        drawn = f"Independent samples reach pass@{found.sampled_to} only" if found.sampled_to else none
        caveats.append(f"{drawn}, so that what the failed attempts bring cannot be told from drawing again.")
    if found.blind is None and found.k > found.start:
        missing = "None of the history-blind control's dialogues could be graded" if "history_blind" in found.played else "No history-blind control was played"
        caveats.append(f"{missing}: how much a retry schedule alone would gain is not known.")
    elif found.blind is not None and found.blind.high >= 0:
        caveats.append(f"Without sight of its earlier attempts it does not clearly do worse ({points_of(found.blind)}).")
    elif "other_history" not in found.played and found.rose:
        caveats.append("Not shown another problem's failures (other_history): how much of the rise comes of their number alone is not known.")
    caveats += _temperature_caveats(evidence, found)
    if found.models and found.unsampled:
        caveats.append(f"Of {' and '.join(found.unsampled)} pass@{found.k} is not known (too few samples, or none): no rival here.")
    if found.unnamed:
        one = len(found.unnamed) == 1
        caveats.append(
            f"Which model{'' if one else 's'} {' and '.join(found.unnamed)} {'is' if one else 'are'}, the evaluation does not say: {'it counts as another one' if one else 'they count as other ones'}. "
            "Evaluations by this version name their rivals' models."
        )
    if again := [label for label in found.again if label in found.rivals]:
        caveats.append(f"{' and '.join(again)} {'is' if len(again) == 1 else 'are'} the same model once more: no other model.")
    if not found.models and found.k > found.start:
        caveats.append("No rival model: training lowers a model's own pass@k, so that the untrained and the single-turn model are the fairer ones.")
    return caveats if found.rose else caveats + unbeaten + _list_caveats(found)


def _seed_by_seed(evidence: Evidence, found: Findings) -> str:
    """What each of the few seeds gained."""
    said = []
    rivals = [found.strongest] if found.strongest and found.strongest not in found.given else []
    for rival in (None, *rivals):
        against = "their own samples" if rival is None else f"those of {rival}"
        if found.k > found.start and len(gains := evidence.by_seed(evidence.head, rival, found.place, found.k)) > 1:
            each = [points(Interval.exact(gain)).partition(" [")[0] for gain in gains]
            said.append(f"{' and '.join((', '.join(each[:-1]), each[-1]))} points over {against}")
    return f" Seed by seed it gains {'; '.join(said)}." if said else ""


def _list_caveats(found: Findings) -> list[str]:
    """Where the model is not clearly above the best fixed list of answers."""
    if found.listed is None or found.listed.low > 0 or found.k == found.start:
        return []
    solves = f"the best fixed list of {found.k} answers{whose_list(found.place)}, fitted to these problems and named in turn, which would solve {100 * (found.last.mean - found.listed.mean):.1f} %"
    return [f"It is {'clearly below' if found.listed.high < 0 else 'not clearly above'} {solves} ({points_of(found.listed)}): such a list does not read the question."]


def _temperature_caveats(evidence: Evidence, found: Findings) -> list[str]:
    """Where pass@K may be higher at a temperature that was not sampled, and the best possible independent sampling is not known either."""
    if found.gain is None or BEST_SAMPLER in found.rivals:
        return []
    told = []
    hardest = strongest({label: found.rivals[label] for label in found.models})
    for label in dict.fromkeys((found.label, hardest)):
        arm = next((arm for arm in evidence.arms if arm.label == label), None)
        best = evidence.best_temperatures(arm, found.k) if arm else []
        if any(end for _, end in best):
            told.append(f"{label} ({sum(end for _, end in best)} of {len(best)} evaluations)")
    return [f"pass@{found.k} was highest at an end of the temperatures sampled: {', '.join(told)}. Further out it may be higher, and the gain smaller."] if told else []


def _tiles(found: Findings) -> list[Tile]:
    if found.k == found.start:
        return [_tile(_attempts(found.k), found.last)]
    tiles = [_tile(_attempts(found.start), found.first), _tile(_attempts(found.k), found.last)]
    if found.passed:
        tiles.append(_tile(f"{found.k} independent draws", found.passed, f"pass@{found.k}, same model"))
    if found.gain:
        tiles.append(_points_tile("points over drawing again, same model", found.gain))
    if (rival := found.strongest) is not None:
        tiles.append(_points_tile("points over the strongest rival's draws", found.rivals[rival], rival))
    if found.kept:
        tiles.append(_tile("of the rise kept without sight of the failures", found.kept))
    return tiles


def _tile(label: str, value: Interval, note: str = "") -> Tile:
    shown, _, rest = percent(value).partition(" [")
    return Tile(label, f"{shown} %", "[" + rest, note)


def _points_tile(label: str, value: Interval, note: str = "") -> Tile:
    shown, _, rest = points(value).partition(" [")
    return Tile(label, shown, "[" + rest, "; ".join(filter(None, (note, "includes 0" if _sign(value) is None else ""))))


def _unevaluated(arm: Arm) -> Headline:
    if any(member.problem_sets for member in arm.members):
        return Headline(f"The seeds of {arm.label} have no figure in common", "open", (), "", ("Evaluate all of them on the same problems, with the same numbers of attempts.",), ())
    run = arm.members[0].run
    lines = [line for line in (run.metrics() if run else []) if isinstance(line.get("reward"), (int, float))]
    tenth = max(1, len(lines) // 10)
    sentences = ["Nothing is known of its accuracy on held-out problems."]
    if lines:
        early, late = (sum(line["reward"] for line in part) / len(part) for part in (lines[:tenth], lines[-tenth:]))
        sentences.append(f"Its training reward was {early:+.2f} over the first {tenth} of {len(lines)} steps and {late:+.2f} over the last {tenth}.")
    todo = how_to_evaluate(run) if run else f"run mulligan eval {arm.members[0].folder} --out {arm.members[0].folder / 'eval'}"
    return Headline(f"{arm.label} was not evaluated", "open", tuple(sentences), "", (f"{todo[0].upper()}{todo[1:]}.",), ())


def _attempts(k: int) -> str:
    return f"{k} attempt{'s' * (k > 1)}"


def _sign(value: Interval | None) -> bool | None:
    """True above 0, False below, None: the interval includes 0."""
    return None if value is None or value.low <= 0 <= value.high else value.mean > 0
