"""An evaluation that was stopped goes on where it was, and takes nothing from another model, protocol or question."""

import dataclasses

import pyarrow.parquet as pq
import pytest
from fake_dialogues import FakePlayer, problem

from mulligan.config import parse_recipe
from mulligan.errors import RunError
from mulligan.evaluation import KeptPlays, dialogue_table, evaluate
from mulligan.evaluation.values import UNFINISHED
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
    return [["c"], ["w:3", "c"], ["w:4", "t", "c"], ["n", "w:5", "w:5"], ["w:8"] * k][i % 5][:k] if g % 3 < 2 else ["w:6"] * k


def kept(player, folder, fingerprint="one", **changes):
    return KeptPlays(player, folder, model=fingerprint, recipe=parse_recipe(RECIPE | changes))


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


class Hinting(FakePlayer):
    """Every verdict carries these fields."""

    def __init__(self, **fields):
        super().__init__(script)
        self.fields = fields

    def play(self, problems, **call):
        def hinted(rollout):
            return dataclasses.replace(rollout, attempts=tuple(dataclasses.replace(a, verdict=dataclasses.replace(a.verdict, fields=self.fields)) for a in rollout.attempts))

        return [Group(g.problem, tuple(map(hinted, g.rollouts))) for g in super().play(problems, **call)]


def test_what_the_verdicts_said_comes_back_for_the_controls_that_borrow_it(tmp_path):
    play(kept(Hinting(hint="higher", bulls="2"), tmp_path), controls=(), samples=0)
    player = FakePlayer(script)
    play(kept(player, tmp_path), controls=("random_verdict",), samples=0)
    donors = [r for call in player.calls for g in call["donors"] for r in g.rollouts]
    assert {c["condition"] for c in player.calls} == {"random_verdict"}
    verdicts = [a.verdict for r in donors for a in r.attempts]
    assert verdicts and all(v.fields == {"hint": "higher", "bulls": "2"} for v in verdicts)
    assert Verdict(verdicts[0].kind, verdicts[0].answer, ms=1.5, fields=verdicts[0].fields) == verdicts[0]


@pytest.mark.parametrize("player", [Hinting(left=2), FakePlayer(lambda i, k, g: ["u"] if i == 3 else ["c"]), FakePlayer(script, errors=[5])])
def test_what_cannot_come_back_as_it_was_or_failed_is_not_kept(tmp_path, player):
    """Numbers among a verdict's fields would come back as text; what the grader or the feedback failed on may not fail again."""
    for _ in range(2):
        play(kept(player, tmp_path), controls=(), samples=0)
    assert len(player.calls) == 2 * 3
    assert not (tmp_path / UNFINISHED).exists()


class ByProblem(FakePlayer):
    """Answers by the problem, whichever piece it is in; stops in the call number `at`."""

    def __init__(self, at: int | None = None):
        super().__init__(lambda i, k, g: script(int(self.asked[i].id[1:]), k, g))
        self.at = at

    def play(self, problems, **call):
        self.asked = problems
        if len(self.calls) == self.at:
            raise Stopped
        return super().play(problems, **call)


SAMPLES = {"controls": (), "attempts": (1,), "temperatures": (1.0,)}
ONE_ROW = {"sampling": {"max_rows": 1}}
"""One dialogue is sampled at once: a piece has 16, which are 4 problems of 4 samples."""


def test_many_dialogues_are_kept_in_pieces(tmp_path):
    with pytest.raises(Stopped):
        play(kept(ByProblem(at=2), tmp_path, **ONE_ROW), **SAMPLES)
    assert len(list((tmp_path / UNFINISHED).iterdir())) == 2, "the dialogues with one attempt, and the first samples"
    player = ByProblem()
    result, whole = play(kept(player, tmp_path, **ONE_ROW), **SAMPLES), play(FakePlayer(script), **SAMPLES)
    assert [(c["group_size"], len(c["donors"])) for c in player.calls] == [(4, 0), (4, 0)]
    assert result.to_json() == whole.to_json()
    assert dialogue_table(result).equals(dialogue_table(whole))


def test_a_piece_of_which_every_dialogue_broke_ends_no_evaluation(tmp_path):
    """Seventeen problems are a piece of sixteen and one of one, whose dialogue breaks; that they all break does end it."""
    problems = [problem(i) for i in range(17)]
    one = {"problems": problems, "controls": (), "samples": 0, "attempts": (2,)}

    class Broken(ByProblem):
        def play(self, problems, **call):
            return [Group(g.problem, tuple(dataclasses.replace(r, error="feedback: KeyError") for r in g.rollouts)) if g.problem.id in self.broken else g for g in super().play(problems, **call)]

    player = Broken()
    player.broken = {"p16"}
    assert play(kept(player, tmp_path, **ONE_ROW), **one).errors == {"2": 1, "samples": 0}
    assert [len(c["donors"]) for c in player.calls] == [0, 0]
    player.broken = {p.id for p in problems}
    with pytest.raises(RunError, match="every dialogue of step 2 broke, the first with: feedback: KeyError"):
        play(kept(player, tmp_path / "all", **ONE_ROW), **one)


def test_controls_that_borrow_are_played_again_if_what_can_be_borrowed_differs(tmp_path):
    """A grader that fails at first, and not when the evaluation goes on: `other_history` had one dialogue less to show."""

    class Failing(FakePlayer):
        def play(self, problems, **call):
            groups = super().play(problems, **call)
            broken = dataclasses.replace(groups[0].rollouts[0], error="grader")
            return [Group(groups[0].problem, (broken,)), *groups[1:]] if call["condition"] == "normal" and call["budget"] == 3 else groups

    borrowing = {"controls": ("other_history",), "samples": 0, "attempts": (1, 3)}
    play(kept(Failing(script), tmp_path), **borrowing)
    player = FakePlayer(script)
    play(kept(player, tmp_path), **borrowing)
    assert [(c["condition"], c["budget"]) for c in player.calls] == [("normal", 3), ("other_history", 1), ("other_history", 3)]


def test_problems_that_occur_twice_are_played_together(tmp_path):
    """A player tells their draws apart by which of them comes first."""
    player = ByProblem()
    play(kept(player, tmp_path, **ONE_ROW), problems=[*PROBLEMS, PROBLEMS[0]], **SAMPLES)
    assert [c["group_size"] for c in player.calls] == [1, 4]


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "another"},
        {"protocol": {"feedback": "{hint} {n}"}},
        {"grader": {"deadline": 7.0}},
        {"reward": {"discount": 0.8}},
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


def test_a_function_that_was_changed_under_its_name_is_another(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "my_own_task.py"
    feedback = {"protocol": {"feedback": "my_own_task:hint"}}
    problems = [dataclasses.replace(p, grader="my_own_task:grade") for p in PROBLEMS]
    for changes, asked in ((feedback, PROBLEMS), ({}, problems)):
        module.write_text("# one")
        play(kept(FakePlayer(script), tmp_path, **changes), problems=asked)
        for text, played in (("# one", 0), ("# two", CALLS)):
            module.write_text(text)
            player = FakePlayer(script)
            play(kept(player, tmp_path, **changes), problems=asked)
            assert len(player.calls) == played


def test_a_function_is_what_it_was_when_the_evaluation_began(tmp_path, monkeypatch):
    """Its file is changed in the middle: what is played on is played by the function that is loaded, and not found again by the new one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "my_own_grader.py"
    module.write_text("# one")
    problems = [dataclasses.replace(p, grader="my_own_grader:grade") for p in PROBLEMS]

    class Changing(FakePlayer):
        def play(self, problems, **call):
            module.write_text("# two")
            return super().play(problems, **call)

    play(kept(Changing(script), tmp_path), problems=problems)
    player = FakePlayer(script)
    play(kept(player, tmp_path), problems=problems)
    assert len(player.calls) == CALLS


def test_what_no_dialogue_depends_on_may_change(tmp_path):
    stopped_at(tmp_path, 6)
    player = FakePlayer(script)
    changes = {"model": {"path": "moved"}, "grader": {"workers": 3, "max_failure_rate": 0.5}, "eval": {"samples": 9}, "train": {"steps": 9}}
    play(kept(player, tmp_path, **changes))
    assert len(player.calls) == CALLS - 6


def test_more_can_be_asked_for(tmp_path):
    play(kept(FakePlayer(script), tmp_path), controls=("history_blind", "random_verdict"))
    player = FakePlayer(script)
    play(kept(player, tmp_path), attempts=(1, 2, 3, 4), controls=("history_blind", "random_verdict"), samples=2)
    # Random verdicts are borrowed from the dialogues with the largest budget, which is another one now.
    assert [(c["condition"], c["budget"], c["group_size"]) for c in player.calls] == [
        ("normal", 4, 1), ("history_blind", 4, 1), *[("random_verdict", k, 1) for k in (1, 2, 3, 4)], ("normal", 1, 2), ("normal", 1, 2),
    ]  # fmt: skip


def test_a_false_wrong_of_more_attempts_than_training_gave_is_played_again(tmp_path):
    """Earlier versions played it with the largest budget: what such an evaluation has kept of it is another dialogue, the rest is taken."""
    asked = {"controls": ("false_wrong",), "samples": 0}
    play(kept(FakePlayer(script), tmp_path), **asked)  # without a trained budget it is that of the largest, as it was
    player = FakePlayer(script)
    result = play(kept(player, tmp_path), trained_attempts=2, **asked)
    assert [(c["condition"], c["budget"]) for c in player.calls] == [("false_wrong", 2)]
    assert result.to_json() == play(FakePlayer(script), trained_attempts=2, **asked).to_json()
    assert {r.budget for p in result.plays if p.stage == "false_wrong" for g in p.groups for r in g.rollouts} == {2}


def test_a_damaged_file_is_played_again(tmp_path):
    stopped_at(tmp_path, 3)
    damaged, cut, other = sorted((tmp_path / UNFINISHED).glob("*.parquet"))
    damaged.write_bytes(b"no parquet")
    cut.write_bytes(cut.read_bytes()[:200])
    pq.write_table(pq.read_table(other).drop_columns("rewards"), other)
    player = FakePlayer(script)
    result = play(kept(player, tmp_path))
    assert len(player.calls) == CALLS
    assert result.to_json() == play(FakePlayer(script)).to_json()


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_keeping(tmp_path):
    (tmp_path / UNFINISHED).write_text("a file stands in the way")
    with pytest.warns(RuntimeWarning, match="what it has played from here on is played again") as warned:
        result = play(kept(FakePlayer(script), tmp_path))
    assert len(warned) == 1
    assert result.to_json() == play(FakePlayer(script)).to_json()


def test_nothing_is_left_when_it_is_whole_but_what_is_anothers(tmp_path):
    stopped_at(tmp_path, 3)
    small = kept(FakePlayer(script), tmp_path)
    play(small, problems=PROBLEMS[:4])
    assert len(list((tmp_path / UNFINISHED).iterdir())) == 3 + CALLS
    small.forget()
    assert len(list((tmp_path / UNFINISHED).iterdir())) == 3
    whole = kept(FakePlayer(script), tmp_path)
    play(whole)
    whole.forget()
    assert list(tmp_path.iterdir()) == []
    whole.forget()
