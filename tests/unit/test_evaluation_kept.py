"""An evaluation that was stopped goes on where it was, and takes nothing from another model, protocol or question."""

import dataclasses

import pytest
from fake_dialogues import FakePlayer, problem

from mulligan.config import parse_recipe
from mulligan.evaluation import KeptPlays, dialogue_table, evaluate, forget_unfinished
from mulligan.evaluation.kept import UNFINISHED
from mulligan.types import Group, Verdict

PROBLEMS = [problem(i) for i in range(12)]
WHOLE = {"attempts": (1, 2, 3), "samples": 4, "temperatures": (0.6, 1.0), "controls": ("random_verdict", "false_wrong"), "seed": 5}
CALLS = 3 + 3 + 1 + 2
"""Three budgets, three of random verdicts, one of false ones, two temperatures."""
RECIPE = {"name": "r", "model": {"path": "m"}, "problems": {"train": "builtin:guess"}}


class Stopped(Exception):
    pass


class StoppedPlayer(FakePlayer):
    """Stops in the middle of call number `at` (from 0), after two of its dialogues."""

    def __init__(self, at: int):
        super().__init__(script)
        self.at = at

    def play(self, problems, **call):
        if len(self.calls) == self.at:
            super().play(problems[:2], **call)
            raise Stopped
        return super().play(problems, **call)


def script(i, k, g):
    return [["c"], ["w:3", "c"], ["w:4", "t", "c"], ["n", "w:5", "w:5"], ["u"]][i % 5][:k] if g % 3 < 2 else ["w:6"] * k


def kept(player, folder, weights="one", **changes):
    return KeptPlays(player, folder, weights=weights, recipe=parse_recipe(RECIPE | changes))


def play(player, **changes):
    return evaluate(player, changes.pop("problems", PROBLEMS), name="set", **{**WHOLE, **changes})


def stopped_at(folder, at):
    with pytest.raises(Stopped):
        play(kept(StoppedPlayer(at), folder))


@pytest.mark.parametrize("at", range(CALLS))
def test_it_goes_on_to_the_same_figures_and_dialogues(tmp_path, at):
    whole = play(FakePlayer(script))
    stopped_at(tmp_path, at)
    assert len(list((tmp_path / UNFINISHED).glob("*.parquet"))) == at
    player, done = FakePlayer(script), []
    again = kept(player, tmp_path)
    result = play(again, on_done=done.append)
    assert result.to_json() == whole.to_json()
    assert dialogue_table(result).equals(dialogue_table(whole))
    assert len(player.calls) == CALLS - at
    assert len(done) == 12 * (3 + 3 + 1 + 2 * 4)
    assert again.taken == len(done) - sum(12 * call["group_size"] for call in player.calls)


def test_what_the_verdicts_said_comes_back_for_the_controls_that_borrow_it(tmp_path):
    class Hinting(FakePlayer):
        def play(self, problems, **call):
            def hinted(rollout):
                attempts = (dataclasses.replace(a, verdict=dataclasses.replace(a.verdict, fields={"hint": "higher", "n": 3})) for a in rollout.attempts)  # type: ignore[dict-item]
                return dataclasses.replace(rollout, attempts=tuple(attempts))

            return [Group(g.problem, tuple(map(hinted, g.rollouts))) for g in super().play(problems, **call)]

    play(kept(Hinting(script), tmp_path), controls=(), samples=0)
    player = FakePlayer(script)
    play(kept(player, tmp_path), controls=("random_verdict",), samples=0)
    donors = [r for call in player.calls for g in call["donors"] for r in g.rollouts]
    assert {c["condition"] for c in player.calls} == {"random_verdict"}
    verdicts = [a.verdict for r in donors for a in r.attempts]
    assert verdicts and all(v.fields == {"hint": "higher", "n": "3"} for v in verdicts)
    assert Verdict(verdicts[0].kind, verdicts[0].answer, ms=1.5, fields=verdicts[0].fields) == verdicts[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "another"},
        {"protocol": {"feedback": "{hint} {n}"}},
        {"grader": {"deadline": 7.0}},
        {"reward": {"discount": 0.8}},
        {"model": {"path": "m", "tokenizer": "another"}},
    ],
)
def test_nothing_is_taken_from_another_model_or_protocol(tmp_path, changes):
    stopped_at(tmp_path, 4)
    player = FakePlayer(script)
    again = kept(player, tmp_path, **changes)
    play(again)
    assert (len(player.calls), again.taken) == (CALLS, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 6},
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"problems": [dataclasses.replace(p, question="another") for p in PROBLEMS]},
        {"problems": [dataclasses.replace(p, meta={"low": 2}) for p in PROBLEMS]},
        {"problems": PROBLEMS[:8]},
    ],
)
def test_nothing_is_taken_from_other_dialogues(tmp_path, changes):
    stopped_at(tmp_path, 4)
    player = FakePlayer(script)
    play(kept(player, tmp_path), **changes)
    assert len(player.calls) == CALLS


def test_where_the_model_lies_and_how_much_is_asked_for_may_change(tmp_path):
    stopped_at(tmp_path, 6)
    player = FakePlayer(script)
    play(kept(player, tmp_path, model={"path": "moved"}), attempts=(1, 2, 3, 4), controls=("random_verdict",), samples=2)
    # Random verdicts are borrowed from the dialogues with the largest budget, which is another one now.
    assert [(c["condition"], c["budget"], c["group_size"]) for c in player.calls] == [
        ("normal", 4, 1), *[("random_verdict", k, 1) for k in (1, 2, 3, 4)], ("normal", 1, 2), ("normal", 1, 2),
    ]  # fmt: skip


def test_a_damaged_file_is_played_again(tmp_path):
    stopped_at(tmp_path, 3)
    damaged, cut, _ = sorted((tmp_path / UNFINISHED).glob("*.parquet"))
    damaged.write_bytes(b"no parquet")
    cut.write_bytes(cut.read_bytes()[:200])
    player = FakePlayer(script)
    result = play(kept(player, tmp_path))
    assert len(player.calls) == CALLS - 1
    assert result.to_json() == play(FakePlayer(script)).to_json()


def test_nothing_is_left_when_it_is_whole(tmp_path):
    stopped_at(tmp_path, 3)
    forget_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []
    forget_unfinished(tmp_path)
