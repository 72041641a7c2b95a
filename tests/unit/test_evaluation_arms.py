"""Arms from folders: which runs are seeds of one arm, what they are called, and what comparisons of them are warned of."""

import pytest
from arms_on_disk import N, arm_data, multi_and_single, training, write_evaluation, write_run

from mulligan.errors import ConfigError, RunError
from mulligan.evaluation.arms import evaluations_on_the_way, find_arm, read_arms, read_member
from mulligan.evaluation.comparison import comparison_warnings
from mulligan.evaluation.values import UNFINISHED
from mulligan.runlog import RunFolder


@pytest.fixture
def runs(tmp_path):
    return multi_and_single(tmp_path)


def test_seeds_of_one_recipe_are_joined(runs):
    arms = read_arms([str(runs / name) for name in ("multi-seed0", "single", "multi-seed1")])
    assert [(arm.label, [m.seed for m in arm.members]) for arm in arms] == [("multi", [0, 1]), ("single", [0])]
    assert arms[0].trained_attempts == 3
    assert arms[1].trained_attempts == 1
    assert arms[0].cells("one", "solved", [1, 3], arms[0].problems("one")).shape == (2, N, 2)


def test_other_settings_make_another_arm_and_those_that_teach_nothing_do_not(runs):
    write_run(runs / "more", seed=2, optimizer__lr=1e-3)
    write_evaluation(runs / "more", arm_data(2))
    write_run(runs / "logged", seed=3, log__checkpoint_every=7, name="another name", eval__attempts="1-3")
    write_evaluation(runs / "logged", arm_data(3))
    arms = read_arms([str(runs / name) for name in ("multi-seed0", "more", "logged")])
    assert [[m.folder.name for m in arm.members] for arm in arms] == [["multi-seed0", "logged"], ["more"]]


def test_the_same_seed_twice_stays_apart(runs):
    write_evaluation(runs / "multi-seed0" / "eval", arm_data(5))
    write_evaluation(runs / "multi-seed0" / "other", arm_data(6))
    arms = read_arms([str(runs / "multi-seed0" / "other"), str(runs / "multi-seed0")])
    assert [len(arm.members) for arm in arms] == [1, 1]
    assert arms[1].members[0].folder == runs / "multi-seed0" / "eval"  # a run's own evaluation folder comes before the run itself
    assert len({arm.label for arm in arms}) == 2


def test_models_that_seeds_began_from_may_be_seeds_themselves(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"warm{seed}", seed=seed, train__steps=0)
        write_run(tmp_path / f"arm{seed}", seed=seed, model__path=str(tmp_path / f"warm{seed}" / "model"))
        write_evaluation(tmp_path / f"arm{seed}", arm_data(seed))
    write_run(tmp_path / "other-warm", seed=1, train__steps=0, warmup__steps=5)
    write_run(tmp_path / "arm2", seed=2, model__path=str(tmp_path / "other-warm" / "model"))
    write_evaluation(tmp_path / "arm2", arm_data(2))
    arms = read_arms([str(tmp_path / f"arm{i}") for i in range(3)])
    assert [len(arm.members) for arm in arms] == [2, 1]


@pytest.mark.parametrize(("names", "label"), [(("m-seed1", "m-seed10"), "m"), (("m-seed10", "m-seed11"), "m"), (("m7b-1", "m7b-2"), "m7b"), (("size20", "size21"), "size")])
def test_a_label_ends_in_no_part_of_a_number(tmp_path, names, label):
    for seed, name in enumerate(names):
        write_run(tmp_path / name, seed=seed)
        write_evaluation(tmp_path / name, arm_data(seed))
    (arm,) = read_arms([str(tmp_path / name) for name in names])
    assert arm.label == label


def test_a_graders_deadline_makes_another_evaluation(tmp_path):
    """What overruns it is wrong, or cannot be graded."""
    for seed, deadline in enumerate((1.0, 9.0)):
        write_run(tmp_path / f"m{seed}", seed=seed, grader__deadline=deadline)
        write_evaluation(tmp_path / f"m{seed}", arm_data(seed))
    a, b = read_arms([str(tmp_path / "m0"), str(tmp_path / "m1")])
    assert any("were not played alike (grader.deadline: 1.0 and 9.0)" in text for text in comparison_warnings([a, b]))


def test_labels_join_and_name(runs):
    joined = read_arms([f"mine={runs / 'multi-seed0'},{runs / 'multi-seed1'}", f"base={runs / 'single'}"])
    assert [(arm.label, len(arm.members)) for arm in joined] == [("mine", 2), ("base", 1)]
    assert find_arm(joined, "base") is find_arm(joined, str(runs / "single")) is joined[1]
    with pytest.raises(ConfigError, match=r"--baseline none: not one of the arms \(mine, base\)"):
        find_arm(joined, "none")


def test_an_evaluation_knows_the_run_that_it_lies_in_or_names(runs, tmp_path_factory):
    write_evaluation(runs / "multi-seed1" / "again", arm_data(1))
    elsewhere = write_evaluation(tmp_path_factory.mktemp("elsewhere") / "e", arm_data(1), model=str(runs / "multi-seed0" / "model"))
    inside, named = read_arms([f"a={runs / 'multi-seed1' / 'again'}", f"b={elsewhere}"])
    assert inside.members[0].run.path.name == "multi-seed1"
    assert named.members[0].run.path.name == "multi-seed0"


def test_what_is_wrong_with_arguments_is_said(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="neither a run nor an evaluation"):
        read_arms([str(tmp_path / "empty")])
    with pytest.raises(ConfigError, match="given twice"):
        read_arms([str(runs / "single"), f"x={runs / 'single'}"])
    with pytest.raises(ConfigError, match="two arms are called 'x'"):
        read_arms([f"x={runs / 'single'}", f"x={runs / 'multi-seed0'}"])
    with pytest.raises(ConfigError, match="write LABEL=FOLDER"):
        read_arms(["x="])
    bare = write_run(tmp_path / "bare")
    with pytest.raises(RunError, match=r"was not evaluated: its training has not ended; if it was stopped, mulligan train RECIPE --out .*bare --resume goes on with it"):
        read_arms([str(tmp_path / "bare")])
    bare.model.mkdir()
    (bare.model / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"was not evaluated: run mulligan eval .*bare --out .*bare/eval"):
        read_arms([str(tmp_path / "bare")])
    assert read_arms([str(tmp_path / "bare")], need_evaluation=False)[0].problem_sets == []


def test_an_evaluation_without_values_says_what_to_run(runs):
    (runs / "single" / "values.parquet").unlink()
    (arm,) = read_arms([str(runs / "single")])
    assert not arm.has_values
    with pytest.raises(RunError, match=r"has no values.parquet.*mulligan eval .*single --out .*single/eval"):
        arm.problems("one")


def test_another_revision_is_another_model(tmp_path):
    folders = [write_evaluation(tmp_path / rev, arm_data(0), model="ORG/M", settings={"model": {"path": "ORG/M", "revision": rev}}) for rev in ("v1", "v2")]
    assert [read_member(folder).model for folder in folders] == ["ORG/M@v1", "ORG/M@v2"]


def test_seeds_are_joined_from_any_working_folder(tmp_path, monkeypatch):
    """Their models' paths are relative to the folder that training was started in."""
    for seed in range(2):
        write_run(tmp_path / "runs" / f"warm-{seed}", seed=seed)
        (tmp_path / "runs" / f"warm-{seed}" / "model").mkdir()
        write_run(tmp_path / "runs" / f"m-{seed}", seed=seed, model__path=f"runs/warm-{seed}/model")
        write_evaluation(tmp_path / "runs" / f"m-{seed}", arm_data(seed))
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        (arm,) = read_arms([str(tmp_path / "runs" / f"m-{seed}") for seed in range(2)])
        assert len(arm.members) == 2


@pytest.mark.parametrize("warm_ups", [True, False])
def test_seeds_that_lie_elsewhere_than_they_were_trained_are_joined(tmp_path, warm_ups):
    """As an archive of results is unpacked: the recipes name models under the folder of the training, and the warm-ups lie beside the runs, or nowhere."""
    for seed in (1, 2, 11):
        place = tmp_path / "out" / f"seed-{seed}"
        for name, attempts in (("single", "fixed(1)"), ("multi", "uniform(1,3)")):
            write_run(place / name, seed=seed, attempts=attempts, model__path=f"runs/codes/seed-{seed}/warm-up/model")
            write_evaluation(place / name, arm_data(seed))
        if warm_ups:
            write_run(place / "warm-up", seed=seed, train__steps=0)
    arms = read_arms([str(tmp_path / "out" / f"seed-{seed}" / name) for name in ("single", "multi") for seed in (1, 2, 11)])
    assert [len(arm.members) for arm in arms] == [3, 3]


def test_runs_that_began_from_other_warm_ups_are_no_seeds_wherever_they_lie(tmp_path):
    for seed, steps in ((1, 3), (2, 5)):
        place = tmp_path / f"seed-{seed}"
        write_run(place / "warm-up", seed=seed, train__steps=0, warmup__steps=steps)
        write_run(place / "multi", seed=seed, model__path=f"runs/seed-{seed}/warm-up/model")
        write_evaluation(place / "multi", arm_data(seed))
    write_run(tmp_path / "seed-3" / "multi", seed=3, model__path="runs/seed-3/longer-warm-up/model")
    write_evaluation(tmp_path / "seed-3" / "multi", arm_data(3))
    assert len(read_arms([str(tmp_path / f"seed-{seed}" / "multi") for seed in (1, 2, 3)])) == 3


def test_a_model_that_the_run_around_its_evaluation_did_not_make_is_not_the_runs(tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "run" / "initial_model").mkdir()
    write_evaluation(tmp_path / "run" / "before", arm_data(0), model=str(tmp_path / "run" / "initial_model"))
    write_evaluation(tmp_path / "run" / "after", arm_data(0), model=str(tmp_path / "moved" / "model"))
    before, after = (read_member(tmp_path / "run" / name) for name in ("before", "after"))
    assert before.run is None
    assert after.run is not None


def test_evaluations_on_the_way(runs):
    run = read_arms([str(runs / "single")])[0].members[0].run
    for step in (2, 10):
        write_evaluation(runs / "single" / f"eval_{step:06d}", arm_data(step))
    (runs / "single" / "eval_000020").mkdir()
    assert list(evaluations_on_the_way(run)) == [2, 10]


def test_the_evaluation_at_the_end_is_the_last_one_on_the_way(tmp_path):
    """As a point of the curve; without others on the way there is no curve."""
    for name, on_the_way in (("with", True), ("without", False)):
        write_run(tmp_path / name, metrics=training(6))
        write_evaluation(tmp_path / name, {"s": {"solved": {1: [0, 1, 1]}}})
        if on_the_way:
            write_evaluation(tmp_path / name / "eval_000004", {"s": {"solved": {1: [0, 0, 1]}}})
    found = evaluations_on_the_way(RunFolder.open(tmp_path / "with"))
    assert {step: member.problem_sets["s"]["accuracy"]["1"]["mean"] for step, member in found.items()} == pytest.approx({4: 1 / 3, 6: 2 / 3})
    assert evaluations_on_the_way(RunFolder.open(tmp_path / "without")) == {}


def test_an_evaluation_that_was_begun_beside_the_runs_own_is_told(tmp_path):
    run = write_run(tmp_path / "m")
    write_evaluation(run.path, {"s": {"solved": {1: [0, 1] * 100}}})
    (tmp_path / "m" / "eval" / UNFINISHED).mkdir(parents=True)
    text = "\n".join(comparison_warnings(read_arms([str(run.path)])))
    assert f"{tmp_path / 'm' / 'eval'}: this evaluation was not finished, and what stands here is the one at the end of training" in text
    write_evaluation(run.path / "eval", {"s": {"solved": {1: [0, 1] * 100}}})  # whole, and another one begun in its folder
    assert "not finished" not in "\n".join(comparison_warnings(read_arms([str(run.path)])))
