"""Controls: which dialogues are played under which condition, and what is made of them."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_dialogues import FakePlayer, problem, rollout

from mulligan.config import CONTROLS
from mulligan.errors import ConfigError
from mulligan.evaluation import evaluate, num_dialogues, write_evaluation
from mulligan.evaluation.controls import false_wrong, gain_kept

PROBLEMS = [problem(i) for i in range(40)]


def gains(i, k, g):
    """Of every 4 problems one is solved at the first attempt, two more at the second."""
    return [["c"], ["w", "c"], ["w", "c"], ["w"] * k][i % 4][:k]


def half(i, k, g):
    """Under a control: half of that rise."""
    return [["c"], ["w", "c"], ["w"] * k, ["w"] * k][i % 4][:k]


def run(controls, attempts=(1, 2, 3), conditions=None, **more):
    player = FakePlayer(gains, conditions=conditions or {name: half for name in CONTROLS})
    return player, evaluate(player, PROBLEMS, name="forty", attempts=attempts, controls=controls, **more)


def played(player):
    return [(c["condition"], c["budget"]) for c in player.calls]


def test_each_control_is_played_with_each_budget_and_false_wrong_with_one():
    done = []
    player, result = run(CONTROLS, on_done=done.append, seed=3, temperature=0.5)
    assert played(player) == [("normal", k) for k in (1, 2, 3)] + [(c, k) for c in CONTROLS[:4] for k in (1, 2, 3)] + [("false_wrong", 3)]
    normal = {c["budget"]: c for c in player.calls[:3]}
    for call in player.calls[3:]:
        # the same draws as the normal dialogue with that budget
        assert {key: call[key] for key in ("seed", "step", "stage", "params", "group_size")} == {key: normal[call["budget"]][key] for key in ("seed", "step", "stage", "params", "group_size")}
        assert [g.problem.id for g in call["donors"]] == [p.id for p in PROBLEMS]
        assert {r.budget for g in call["donors"] for r in g.rollouts} == {3}
    assert all(c["donors"] == () for c in player.calls[:3])
    assert len(done) == num_dialogues(40, (1, 2, 3), 0, controls=CONTROLS) == 40 * (3 + 4 * 3 + 1)
    assert set(result.controls) == set(CONTROLS) - {"false_wrong"}


def test_one_pass_plays_controls_once_but_for_random_verdicts():
    player, _ = run(CONTROLS, one_pass=True, samples=2, temperatures=(0.6, 1.0))
    assert played(player)[:1] == [("normal", 3)]
    assert [k for c, k in played(player) if c == "random_verdict"] == [1, 2, 3]
    assert all([k for c, k in played(player) if c == name] == [3] for name in set(CONTROLS) - {"random_verdict"})
    assert num_dialogues(40, (1, 2, 3), 2, one_pass=True, temperatures=2, controls=CONTROLS) == 40 * (1 + 3 + 4 + 2 * 2)
    assert sum(c["group_size"] for c in player.calls) * 40 == 40 * (1 + 3 + 4 + 2 * 2)


def test_without_controls_nothing_else_is_played():
    player, result = run(())
    assert played(player) == [("normal", k) for k in (1, 2, 3)]
    assert result.to_json()["controls"] == {}
    assert result.to_json()["false_wrong"] == {}


def test_figures_of_a_control():
    _, result = run(("history_blind",))
    table = result.to_json()["controls"]["history_blind"]
    assert {k: v["mean"] for k, v in table["accuracy"].items()} == {"1": 0.25, "2": 0.5, "3": 0.5}
    assert {k: v["mean"] for k, v in table["difference"].items()} == {"1": 0.0, "2": -0.25, "3": -0.25}
    assert table["difference"]["2"]["low"] < -0.25 < table["difference"]["2"]["high"] < 0
    assert table["gain_kept"]["mean"] == pytest.approx(0.5)
    assert 0.2 < table["gain_kept"]["low"] < 0.5 < table["gain_kept"]["high"] < 0.8
    # tokens: attempt t has t + 1; under the control 1 of 4 ends at the first attempt, 1 at the second, 2 take all three
    assert table["tokens_per_problem"]["3"]["mean"] == pytest.approx((2 + 5 + 9 + 9) / 4)


def test_random_verdicts_count_by_the_last_answer():
    """A right answer that was called wrong and given up does not count; one that a random verdict ended the dialogue on does."""
    scripts = [["c", "w"], ["c", "c"], ["w"], ["w", "c"]]
    _, result = run(("random_verdict",), attempts=(1, 2), conditions={"random_verdict": lambda i, k, g: scripts[i % 4][:k]})
    assert result.controls["random_verdict"].accuracy[2].mean == 0.5
    assert result.controls["random_verdict"].accuracy[1].mean == 0.5
    assert result.controls["random_verdict"].curves.solved[2][:4].tolist() == [0, 1, 0, 1]


def test_the_share_kept_is_a_ratio_of_rises():
    first, last = np.zeros(100), np.repeat([1.0, 0.0], 50)
    kept = gain_kept({1: first, 5: np.repeat([1.0, 0.0], [10, 90])}, {1: first, 5: last}, (1, 5))
    assert kept is not None
    assert (kept.mean, kept.n) == (0.2, 100)
    assert 0.05 < kept.low < 0.2 < kept.high < 0.4
    # no resample differs where all is kept, or nothing: of 100 problems 3.70 % may yet behave otherwise, which is 7.4 % of a rise of one half
    same = gain_kept({1: first, 5: last}, {1: first, 5: last}, (1, 5))
    assert (same.low, same.mean, same.high) == pytest.approx((1 - 0.0739870, 1, 1 + 0.0739870), abs=1e-6)
    none = gain_kept({1: first, 5: first}, {1: first, 5: last}, (1, 5))
    assert (none.low, none.mean, none.high) == pytest.approx((-0.0739870, 0, 0.0739870), abs=1e-6)


def test_where_nothing_rises_there_is_nothing_to_keep():
    flat = np.repeat([1.0, 0.0], 50)
    assert gain_kept({1: flat, 5: flat}, {1: flat, 5: flat}, (1, 5)) is None
    barely = flat.copy()
    barely[60] = 1.0
    assert gain_kept({1: flat, 5: flat}, {1: flat, 5: barely}, (1, 5)) is None
    assert gain_kept({1: flat, 5: flat}, {1: flat, 5: 1 - flat}, (1, 5)) is None
    # gained on six, lost on one: fewer than 5 % of the resamples show no rise, but more than 2.5 %, so that its interval reaches 0
    nearly = np.zeros(200)
    nearly[:6], nearly[6] = 1.0, -1.0
    base = np.repeat([0.0, 1.0], [6, 194])
    assert gain_kept({1: base, 5: base}, {1: base, 5: base + nearly}, (1, 5)) is None
    assert run(("history_blind",), attempts=(2, 3))[1].controls["history_blind"].gain_kept is None


def test_the_share_kept_leaves_out_what_was_not_graded():
    first, last = np.zeros(100), np.repeat([1.0, 0.0], 50)
    control = last.copy()
    control[0] = np.nan
    kept = gain_kept({1: first, 5: control}, {1: first, 5: last}, (1, 5))
    assert (kept.mean, kept.n) == (1.0, 99)


def test_intervals_of_the_share_cover_the_truth():
    covered = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        ease = rng.random(80)
        normal, control = (ease < 0.5).astype(float), (rng.random(80) < np.where(ease < 0.5, 0.35, 0.05)).astype(float)
        kept = gain_kept({1: np.zeros(80), 5: control}, {1: np.zeros(80), 5: normal}, (1, 5))
        covered += kept.low <= 0.4 <= kept.high  # (0.5 x 0.35 + 0.5 x 0.05) / 0.5
    assert 0.91 <= covered / 300 <= 0.98


def test_right_answers_that_are_called_wrong():
    scripts = [["c", "c", "c"], ["c", "w", "c"], ["w", "c", "w"], ["c", "n", "w"], ["w", "w", "c"], ["w", "w", "w"], ["c", "u"], ["w", "u"]]
    found = false_wrong([rollout(problem(i), script) for i, script in enumerate(scripts)], 3)
    # four were told so and went on: the fifth was right only at its last attempt, two never, two could not be graded
    assert (found.kept.count, found.kept.total, found.returned.count, found.returned.total) == (1, 4, 2, 4)
    assert found.kept.interval.n == 4
    within = false_wrong([rollout(problem(i), script) for i, script in enumerate(scripts)], 2)
    assert (within.kept.count, within.kept.total, within.returned.count) == (1, 3, 1), "of the first two attempts; the one right at the second could not go on"
    nobody = false_wrong([rollout(problem(0), ["w", "w"])], 2)
    assert nobody.to_json()["kept"] == {"count": 0, "total": 0, "mean": None, "low": None, "high": None, "n": 0}


def test_false_wrong_in_an_evaluation():
    _, result = run(("false_wrong",), conditions={"false_wrong": lambda i, k, g: [["c", "c", "w"], ["c", "w", "c"], ["w", "w", "w"], ["w", "c", "c"]][i % 4]})
    table = result.to_json()["false_wrong"]
    assert (table["kept"]["count"], table["kept"]["total"], table["kept"]["mean"]) == (20, 30, pytest.approx(2 / 3))
    assert table["returned"]["mean"] == 1.0


def test_false_wrong_is_played_with_the_trained_budget_where_more_are_evaluated():
    """With two attempts a right answer stands; with four, more than training gave, it is given up."""
    told = {"false_wrong": lambda i, k, g: ["c", "c"] if k == 2 else ["c", "w", "w", "w"]}
    player, result = run(("false_wrong", "random_verdict"), attempts=(1, 2, 4), conditions=told, trained_attempts=2)
    (call,) = [c for c in player.calls if c["condition"] == "false_wrong"]
    assert (call["budget"], call["step"]) == (2, 2)
    assert {r.budget for g in call["donors"] for r in g.rollouts} == {2}, "what else a wrong verdict says is that of dialogues with this budget"
    assert all({r.budget for g in c["donors"] for r in g.rollouts} == {4} for c in player.calls if c["condition"] == "random_verdict")
    assert (result.false_wrong.kept.count, result.false_wrong.kept.total) == (40, 40)
    assert list(result.values.quantities["false_wrong:told"]) == [2]


def test_false_wrong_of_one_pass_is_counted_up_to_the_trained_budget():
    told = {"false_wrong": lambda i, k, g: ["c", "w", "c", "c"]}
    player, result = run(("false_wrong",), attempts=(1, 2, 4), conditions=told, trained_attempts=2, one_pass=True)
    assert played(player) == [("normal", 4), ("false_wrong", 4)], "as the normal dialogues, which are told of four attempts"
    assert (result.false_wrong.kept.total, result.false_wrong.returned.count) == (40, 0)


def test_faults_of_controls_are_counted_by_their_name():
    _, result = run(("verdict_hidden",), conditions={"verdict_hidden": lambda i, k, g: ["u"] if i < 2 else half(i, k, g)})
    assert dict(result.ungradable) == {"1": 0, "2": 0, "3": 0, "samples": 0, "verdict_hidden": 6}
    assert result.controls["verdict_hidden"].accuracy[2].n == 38
    assert any("6 dialogues could not be graded" in w for w in result.warnings)


def test_dialogues_of_controls_are_kept_under_their_name(tmp_path):
    _, result = run(CONTROLS)
    write_evaluation(tmp_path, [result], model="m")
    rows = pq.read_table(tmp_path / "dialogues.parquet", columns=["stage", "k", "step"]).to_pylist()
    assert len(rows) == 40 * (3 + 12 + 1)
    assert {(r["stage"], r["k"], r["step"]) for r in rows} == {(s, k, k) for s in ("attempts", *CONTROLS[:4]) for k in (1, 2, 3)} | {("false_wrong", 3, 3)}


def test_unknown_controls_and_single_attempts_are_named_before_anything_is_played():
    player = FakePlayer(gains)
    with pytest.raises(ConfigError, match="control 'blind' is not known; use history_blind, verdict_hidden"):
        evaluate(player, PROBLEMS, name="x", attempts=(1, 2), controls=("blind",))
    with pytest.raises(ConfigError, match="evaluate with 2 attempts or more"):
        evaluate(player, PROBLEMS, name="x", attempts=(1,), controls=("history_blind",))
    assert player.calls == []
