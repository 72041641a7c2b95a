"""`mulligan reproduce` with the smallest runs: which are made, that they go on where they were, and what is written."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from mulligan.errors import ConfigError, RunError
from mulligan.reproduce import WARM_UP, Experiment, arm_runs, list_experiments, load_experiment, reproduce, run_experiment

RECIPE = """
attempts = "uniform(1,3)"
[model]
path = "tiny:"
[model.tiny]
hidden_size = 32
layers = 2
heads = 2
intermediate_size = 64
max_position_embeddings = 64
[problems]
train = "builtin:guess?low=1&high=4&n=50"
eval = ["builtin:guess?low=1&high=4&split=test"]
[protocol]
system = ""
question = "{n} {question}"
feedback = "{hint} {n}"
max_attempt_tokens = 5
max_dialogue_tokens = 40
[warmup]
steps = 3
batch_size = 8
[train]
steps = 2
problems_per_step = 8
group_size = 2
micro_batch_tokens = 512
threads = 1
"""

EXPERIMENT = """
title = "small"
recipe = "recipe.toml"
seeds = [3, 4]
headline = "multi-attempt"
rivals = ["single-turn", "warm-up"]
evaluation = ["eval.attempts=1-3", "eval.samples=12"]
drawn = ["multi-attempt", "single-turn"]
[arms.multi-attempt]
evaluation = ["eval.controls=['history_blind']"]
[arms.single-turn]
overrides = ["attempts=fixed(1)"]
[arms.blind]
overrides = ["protocol.history=none"]
seeds = 1
[arms.untrained]
train = false
warm_up = false
overrides = ["warmup.steps=0"]
[arms.reworded]
start = "multi-attempt"
train = false
overrides = ["protocol.feedback=wrong {n}"]
seeds = 1
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "small.toml").write_text(EXPERIMENT)
    return tmp_path / "small.toml"


def test_every_experiment_of_the_project_is_sound(tmp_path: Path) -> None:
    assert {"readings", "guess"} <= set(list_experiments())
    for name in list_experiments():
        experiment, recipe = load_experiment(name)
        runs = arm_runs(experiment, recipe, tmp_path, experiment.seeds)
        assert len({run.evaluation.folder for run in runs}) == len(runs) >= 5 * len(experiment.arms) // 2
        for run in runs:
            settled = run.evaluation.load()
            assert settled.seed == run.seed and settled.problems.eval
            assert run.training is None or not run.training.load_training().problems.eval
        assert all(run.arm == WARM_UP or run.after in {None, *(other.evaluation.folder for other in runs)} for run in runs)


def test_runs_come_seed_by_seed_and_share_the_warm_up_of_their_seed(small: Path) -> None:
    experiment, recipe = load_experiment(str(small))
    runs = arm_runs(experiment, recipe, Path("out"), experiment.seeds)
    assert [(r.seed, r.arm) for r in runs] == [
        *((3, arm) for arm in (WARM_UP, "multi-attempt", "single-turn", "blind", "untrained", "reworded")),
        *((4, arm) for arm in (WARM_UP, "multi-attempt", "single-turn", "untrained")),
    ]
    single = runs[2]
    assert single.training is not None and single.after == Path("out/seed-3/warm-up")
    trained = single.training.load()
    assert (trained.attempts.max_attempts, trained.warmup.steps, trained.model.path) == (1, 0, "out/seed-3/warm-up/model")
    assert runs[4].training is None and runs[4].after is None
    assert runs[5].training is None and runs[5].after == Path("out/seed-3/multi-attempt")
    reworded = runs[5].evaluation.load()
    assert (reworded.model.path, reworded.protocol.feedback) == ("out/seed-3/multi-attempt/model", "wrong {n}")


def test_an_arm_brings_along_the_one_that_it_starts_from(small: Path) -> None:
    experiment, _ = load_experiment(str(small))
    assert experiment.with_starts(["reworded"]) == {"reworded", "multi-attempt", WARM_UP}


def test_a_start_that_is_missing_is_said_before_anything_runs(small: Path, tmp_path: Path) -> None:
    experiment, recipe = load_experiment(str(small))
    runs = arm_runs(experiment, recipe, tmp_path, experiment.seeds)
    (tmp_path / "seed-3" / WARM_UP).mkdir(parents=True)
    (tmp_path / "seed-3" / WARM_UP / "eval.json").write_text("{}")  # as taken from an archive: evaluated, and no model
    with pytest.raises(RunError, match=r"multi-attempt, seed 3 starts from the model in .*warm-up, which is not there"):
        run_experiment(runs, workers=1)
    assert [p.name for p in tmp_path.rglob("*.json")] == ["eval.json"]


def test_it_runs_stops_goes_on_and_writes_its_results(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small.parent / "out"
    assert not reproduce(str(small), out, minutes=0.0)
    assert "the same command goes on" in capsys.readouterr().out
    assert reproduce(str(small), out, workers=2)
    folders = sorted(str(p.parent.relative_to(out)) for p in out.glob("seed-*/*/eval.json"))
    assert folders == sorted([f"seed-{s}/{a}" for s in (3, 4) for a in (WARM_UP, "multi-attempt", "single-turn", "untrained")] + ["seed-3/blind", "seed-3/reworded"])
    written = {p: p.stat().st_mtime_ns for p in out.glob("seed-*/*/eval.json")}
    results = (out / "small.md").read_text()
    assert all(arm in results for arm in ("multi-attempt", "single-turn", "blind", "untrained", "reworded", WARM_UP))
    drawn = (out / "small" / "accuracy.csv").read_text()
    (settled,) = json.loads((out / "seed-3" / "multi-attempt" / "eval.json").read_text())["problem_sets"].values()
    (other,) = json.loads((out / "seed-3" / "single-turn" / "eval.json").read_text())["problem_sets"].values()
    assert "history_blind" in settled["controls"] and not other.get("controls")
    assert "multi-attempt" in drawn and "single-turn" in drawn and "blind" not in drawn
    assert "The figures show multi-attempt, single-turn; the tables show warm-up, " in results
    facts = json.loads((out / "results.json").read_text())
    assert facts["seeds"]["multi-attempt"] == [3, 4] and facts["seeds"]["blind"] == [3]
    assert reproduce(str(small), out)
    assert {p: p.stat().st_mtime_ns for p in written} == written, "nothing is done twice"
    assert not list(out.rglob("checkpoints")), "what is trained keeps its model alone"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment of which the first seed is done, in `out`."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "small.toml").write_text(EXPERIMENT)
    assert reproduce(str(folder / "small.toml"), folder / "out", seeds=1)
    return folder


def test_the_page_is_made_again_from_the_published_evaluations(finished: Path, tmp_path: Path) -> None:
    """The same page from the archive alone; and what it lacks is run."""
    archive = finished / "out" / "small" / "evaluations.tar.xz"
    again = tmp_path / "again"
    assert reproduce(str(finished / "small.toml"), again, seeds=1, published=archive)
    assert (again / "small.md").read_text() == (finished / "out" / "small.md").read_text()
    assert (again / "small" / "evaluations.tar.xz").read_bytes() == archive.read_bytes()
    assert "(small/training.png)" in (again / "small.md").read_text()
    for name in ("training.png", "training.csv", "accuracy.csv"):
        assert (again / "small" / name).read_bytes() == (finished / "out" / "small" / name).read_bytes()
    assert not list(again.glob("seed-*/*/model")), "nothing was trained"
    assert not reproduce(str(finished / "small.toml"), again, published=archive, minutes=0.0)
    assert not list(again.glob("seed-4/*/eval.json")), "a seed that the archive does not have"


def test_a_seed_of_which_the_archive_lacks_an_arm_is_not_taken_from_it(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "small.toml").write_text(EXPERIMENT.replace("[arms.blind]", "[arms.another]\n[arms.blind]"))
    archive = finished / "out" / "small" / "evaluations.tar.xz"
    with pytest.raises(ConfigError, match=r"no whole seed of this experiment \(it lacks another of seed-3\): choose its own evaluations.tar.xz, or with --arms what it has"):
        reproduce(str(tmp_path / "small.toml"), tmp_path / "out", seeds=1, published=archive, minutes=0.0)
    assert not list((tmp_path / "out").glob("seed-*/*/eval.json"))
    with_starts = ["multi-attempt", "single-turn", "blind", "untrained", "reworded"]
    assert reproduce(str(tmp_path / "small.toml"), tmp_path / "out", seeds=1, arms=with_starts, published=archive)
    page = (tmp_path / "out" / "small.md").read_text()
    command = f"mulligan reproduce {tmp_path / 'small.toml'} --seeds 1 --arms {','.join(with_starts)}"
    assert f"| command | `{command}` |" in page and f"`{command} --from evaluations.tar.xz` makes this page" in page


def test_another_experiments_archive_leaves_nothing_behind(finished: Path, tmp_path: Path) -> None:
    archive = finished / "out" / "small" / "evaluations.tar.xz"
    with pytest.raises(ConfigError, match=r"was trained with other settings|optimizer.lr"):
        reproduce(str(finished / "small.toml"), tmp_path / "out", seeds=1, published=archive, overrides=("optimizer.lr=0.5",))
    assert not list((tmp_path / "out").glob("*seed-*"))
    assert reproduce(str(finished / "small.toml"), tmp_path / "out", seeds=1, published=archive), "the right one can still be taken"


def test_an_archive_that_was_packed_anew_is_read_and_links_in_it_are_not(finished: Path, tmp_path: Path) -> None:
    anew, linked = tmp_path / "anew.tar.xz", tmp_path / "linked.tar.xz"
    with tarfile.open(finished / "out" / "small" / "evaluations.tar.xz") as old, tarfile.open(anew, "w:xz") as new, tarfile.open(linked, "w:xz") as links:
        for member in old.getmembers():
            content = old.extractfile(member)
            member.name = f"./{member.name}"
            new.addfile(member, content)
            link = tarfile.TarInfo(member.name)
            link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
            links.addfile(link)
    assert reproduce(str(finished / "small.toml"), tmp_path / "out", seeds=1, published=anew)
    with pytest.raises(ConfigError, match="no whole seed of this experiment"):
        reproduce(str(finished / "small.toml"), tmp_path / "other", seeds=1, published=linked)


def test_brackets_in_a_path_are_no_markup(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs[/x][red]"
    assert reproduce(str(finished / "small.toml"), out, seeds=1, published=finished / "out" / "small" / "evaluations.tar.xz")
    assert str(out / "small.md") in capsys.readouterr().out


def test_what_was_trained_with_other_settings_does_not_pass_for_a_seed(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer.lr: .* in .*seed-3/.*, 0.5 now"):
        reproduce(str(finished / "small.toml"), finished / "out", seeds=1, overrides=("optimizer.lr=0.5",))


def test_what_was_evaluated_with_other_settings_does_not_pass_for_a_seed(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed-3/warm-up was evaluated with other settings \(eval.samples: 12 there, 99 now\): remove .*eval.json to evaluate again"):
        reproduce(str(finished / "small.toml"), finished / "out", seeds=1, overrides=("eval.samples=99",))
    with pytest.raises(ConfigError, match=r"problems.eval: \['builtin:guess\?low=1&high=4&split=test'\] there, \['builtin:guess\?low=1&high=5&split=test'\] now"):
        reproduce(str(finished / "small.toml"), finished / "out", seeds=1, overrides=("problems.eval=builtin:guess?low=1&high=5&split=test",))
    text = (finished / "small.toml").read_text()
    (finished / "reworded.toml").write_text(text.replace("protocol.feedback=wrong {n}", "protocol.feedback=no {n}"))
    with pytest.raises(ConfigError, match=r"seed-3/reworded was evaluated with other settings \(protocol.feedback: 'wrong {n}' there, 'no {n}' now\)"):
        reproduce(str(finished / "reworded.toml"), finished / "out", seeds=1)


def test_a_page_of_some_arms_has_every_figure_that_it_links(small: Path) -> None:
    """The first rival is not there yet: the baseline is one that is and is drawn, or none."""
    small.write_text(EXPERIMENT.replace('rivals = ["single-turn", "warm-up"]', 'rivals = ["single-turn", "blind"]'))
    assert reproduce(str(small), small.parent / "out", seeds=1, arms=["multi-attempt", "blind"])
    page = (small.parent / "out" / "small.md").read_text()
    linked = re.findall(r"\]\((small/\w+\.png)\)", page)
    assert len(linked) > 3
    assert all((small.parent / "out" / name).is_file() for name in linked)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_an_archive_that_cannot_be_read_is_named(content: bytes | None, small: Path, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.tar.xz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"--from .*x.tar.xz: cannot be read as an archive of evaluations"):
        reproduce(str(small), tmp_path / "out", published=tmp_path / "x.tar.xz")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('title = "x"\nrecipe = "recipe.toml"\nheadline = "b"\n[arms.a]\n', "no arm 'b': use a, warm-up"),
        ('title = "x"\nrecipe = "recipe.toml"\nheadline = "a"\nrivals = ["b", "c"]\ndrawn = ["a", "c"]\n[arms.a]\n[arms.b]\n[arms.c]\n', "drawn lacks 'b': the figures show the headline's arm against the first rival"),
        ('title = "x"\nrecipe = "recipe.toml"\nheadline = "a"\ncolour = 1\n[arms.a]\n', "colour: Extra inputs"),
        ('title = "x"\nrecipe = "recipe.toml"\nheadline = "a"\n[arms.a]\n[arms."b,c"]\n', r"arms: 'b,c' is a folder's name and one of --arms: begin with a letter"),
        ("title = ", "cannot be read as TOML"),
        ('title = "x"\nrecipe = "recipe.toml"\nheadline = "a"\n[arms.a]\n[arms.b]\nstart = "c"\n', r"arms.b.start = 'c': use an arm that is trained from no other \(a\)"),
        ('title = "x"\nrecipe = "recipe.toml"\nheadline = "a"\n[arms.a]\nseeds = 2\n[arms.b]\nstart = "a"\n', "arms.b has more seeds than a, from which it starts: set arms.b.seeds = 2"),
    ],
)
def test_faulty_experiments_are_named(small: Path, text: str, says: str) -> None:
    small.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_experiment(str(small))


def test_unknown_names_come_with_the_known_ones(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'reading': use .*readings"):
        load_experiment("reading")
    with pytest.raises(ConfigError, match="has no arm 'multi': use multi-attempt, single-turn, blind, untrained, reworded"):
        reproduce(str(small), tmp_path / "out", arms=["multi"])
    assert Experiment.model_validate({"title": "x", "recipe": "r", "headline": "a", "arms": {"a": {}}}).seeds == (0, 1, 2, 3, 4)
