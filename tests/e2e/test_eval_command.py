"""`mulligan eval` of a tiny run: what it takes from where, what it writes, what it warns of and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_runs import tiny

from mulligan.cli import main
from mulligan.cli.evaluating import _eval_recipe
from mulligan.cli.training import _arms, _single_turn
from mulligan.config import CONTROLS
from mulligan.display import Display
from mulligan.errors import ConfigError
from mulligan.evaluation import read_values
from mulligan.train import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from scratch: 4 steps of warm-up, 4 of reinforcement learning with 8 x 2 dialogues, evaluation."""
    return train(tiny(), tmp_path_factory.mktemp("runs") / "tiny", display=Display(quiet=True))


def test_eval_of_a_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What an honest table must say is printed, not only written."""
    (tmp_path / "p.jsonl").write_text(json.dumps({"question": "guess 1 4", "answer": "2"}) + "\n" + json.dumps({"question": "guess 1 4", "answer": "x y"}) + "\n")
    arguments = [str(finished), "--problems", f"{tmp_path / 'p.jsonl'}?grader=numeric", "--attempts", "1-6", "--samples", "2", "--one-pass"]
    assert main(["eval", *arguments, "--out", str(tmp_path / "out"), "protocol.feedback=wrong {n}", "protocol.max_dialogue_tokens=12"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("One pass: one dialogue with the largest budget", "1 problem was set aside", "Warning: ", "was ended by the token cap with attempts left"):
        assert part in said, part
    table = json.loads((tmp_path / "out" / "eval.json").read_text())
    (figures,) = table["problem_sets"].values()
    assert figures["accuracy"].keys() == set("123456")
    assert figures["pass_at_k"].keys() == set("12")
    assert figures["starved"]["6"] == 1
    (aside,) = [json.loads(line) for line in (tmp_path / "out" / "set_aside.jsonl").read_text().splitlines()]
    assert "'x y' does not pass its own grader" in aside["reason"]


def test_eval_goes_beyond_training_and_sets_rivals_beside(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The run's own evaluation serves as the rival."""
    arguments = ["--attempts", "1-3,5", "--samples", "3", "--temperatures", "0.5,1.5", "--rival", f"itself={finished}", "--out", str(tmp_path / "out")]
    assert main(["eval", str(finished), *arguments, "protocol.max_dialogue_tokens=60"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("Trained with up to 3 attempts: k = 5 is beyond training", "at equal tokens", "itself: pass@k", "best possible", "each of temperatures 0.5, 1.5", "No controls were played"):
        assert part in said, part
    (figures,) = json.loads((tmp_path / "out" / "eval.json").read_text())["problem_sets"].values()
    assert figures["accuracy"].keys() == set("1235")
    assert (figures["trained_attempts"], figures["rise"]) == (3, [1, 3])
    assert figures["pass_temperatures"].keys() == {"0.5", "1.5"}
    assert figures["ceilings"]["best possible"] == {"1": 0.25, "2": 0.75, "3": 1.0, "5": 1.0}, "bisection of four numbers: the feedback shows the hint"
    own = json.loads((finished / "eval.json").read_text())["problem_sets"][figures["name"]]
    assert figures["rivals"]["itself"]["pass_at_k"] == own["pass_at_k"]
    assert figures["rivals"]["itself"]["gain"]["2"]["mean"] == pytest.approx(figures["accuracy"]["2"]["mean"] - own["pass_at_k"]["2"]["mean"])
    values = read_values(tmp_path / "out")[figures["name"]]
    assert values.quantities["solved"][5].mean() == pytest.approx(figures["accuracy"]["5"]["mean"])


def test_eval_with_controls(finished: Path, tmp_path: Path):
    """Every control is really played, with the run's own model."""
    assert main(["eval", str(finished), "--attempts", "1-3", "--samples", "0", "--controls", "all", "--out", str(tmp_path), "protocol.max_dialogue_tokens=60"]) == 0
    (figures,) = json.loads((tmp_path / "eval.json").read_text())["problem_sets"].values()
    assert figures["controls"].keys() == set(CONTROLS) - {"false_wrong"}
    assert figures["false_wrong"].keys() == {"kept", "returned"}
    stages = pq.read_table(tmp_path / "dialogues.parquet", columns=["stage"]).column("stage").to_pylist()
    assert {s: stages.count(s) for s in set(stages)} == {"attempts": 12, "false_wrong": 4} | {c: 12 for c in CONTROLS if c != "false_wrong"}
    # a first attempt has no history and no verdict yet: no control can change it
    assert all(control["difference"]["1"]["mean"] == 0 for control in figures["controls"].values())


def test_eval_takes_from_the_recipe_what_no_option_says(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Settings count, options go before them, and a recipe's limit and single temperature (which spare training time) do not."""
    settings = ["eval.samples=3", "eval.controls=history_blind", "protocol.max_dialogue_tokens=60"]
    assert main(["eval", str(finished), "--attempts", "1-2", "--temperatures", "0.5", "--out", str(tmp_path / "a"), *settings]) == 0
    (figures,) = json.loads((tmp_path / "a" / "eval.json").read_text())["problem_sets"].values()
    assert (figures["samples"], set(figures["pass_temperatures"]), set(figures["controls"])) == (3, {"0.5"}, {"history_blind"})
    said = capsys.readouterr().out
    assert "No independent samples" not in said and "No controls" not in said
    assert main(["eval", str(finished), "--samples", "0", "--out", str(tmp_path / "b"), "eval.attempts=1,2", *settings[1:]]) == 0
    (figures,) = json.loads((tmp_path / "b" / "eval.json").read_text())["problem_sets"].values()
    assert (figures["samples"], figures["accuracy"].keys(), set(figures["controls"])) == (0, set("12"), {"history_blind"})
    assert "No independent samples were drawn, so that nothing is said of drawing again: --samples 8 gives" in capsys.readouterr().out
    path = tmp_path / "r.toml"
    path.write_text('[model]\npath = "tiny:"\n[problems]\ntrain = "builtin:guess"\n[eval]\nsamples = 12\nlimit = 5\ntemperatures = [0.7]\n')
    of_recipe = _eval_recipe("tiny:", path, None, [], {}).eval
    assert (of_recipe.samples, of_recipe.limit, of_recipe.temperatures) == (12, 0, (0.6, 0.8, 1.0, 1.2))
    assert _eval_recipe("tiny:", None, ["builtin:guess"], ["attempts=uniform(1,4)"], {}).eval_attempts == "1-4,6"
    path.write_text(path.read_text().replace("[0.7]", "[0.7, 1.1]"))
    assert _eval_recipe("tiny:", path, None, ["eval.limit=7"], {}).eval.temperatures == (0.7, 1.1)
    assert _eval_recipe("tiny:", path, None, ["eval.limit=7"], {}).eval.limit == 7
    assert _eval_recipe("tiny:", path, None, ["eval.limit=7"], {"limit": 9}).eval.limit == 9
    with pytest.raises(ConfigError, match="eval"):
        _eval_recipe("tiny:", path, None, ["eval=7"], {"limit": 9})


def test_eval_is_written_before_it_is_shown(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader that is gone (`| head`) takes nothing of what was played."""

    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("rich.console.Console.print", gone)
    main(["eval", str(finished), "--attempts", "1", "--samples", "0", "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "eval.json").is_file()


def test_eval_says_what_it_evaluated_by_which_settings_and_what_was_trained_on(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["eval", str(finished), "--attempts", "1", "--samples", "0"]
    assert main([*arguments, "--out", str(tmp_path / "a"), "protocol.feedback=no {n}"]) == 0
    table = json.loads((tmp_path / "a" / "eval.json").read_text())
    assert (table["model"], table["settings"]["protocol"]["feedback"]) == (str(finished), "no {n}")
    assert "4 of 4 problems are trained on as well: not held out" in " ".join(capsys.readouterr().out.split())
    other = tmp_path / "other"
    shutil.copytree(finished / "model", other)
    assert main([*arguments, "--out", str(tmp_path / "b"), f"model.path={other}"]) == 0
    assert json.loads((tmp_path / "b" / "eval.json").read_text())["model"] == str(other)


def test_eval_refuses_a_folder_that_it_cannot_write_and_a_seed_among_the_settings(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert main(["eval", str(finished), "--out", str(tmp_path / "file")]) != 0
    assert "no folder that can be written to" in capsys.readouterr().err
    assert main(["eval", str(finished), "--out", str(tmp_path / "out"), "seed=7"]) != 0
    assert "seed=7: an evaluation has a seed of its own: --seed 7" in capsys.readouterr().err


def test_the_two_arms_are_evaluated_alike(tmp_path: Path):
    path = tmp_path / "r.toml"
    path.write_text('attempts = "uniform(1,4)"\n[model]\npath = "tiny:"\n[problems]\ntrain = "builtin:guess"\n')
    multi, single = _arms(path, [], True).values()
    assert (multi.attempts.max_attempts, single.attempts.max_attempts) == (4, 1)
    assert multi.eval_attempts == single.eval_attempts == _single_turn(path, []).eval_attempts == "1-4,6"
    assert _single_turn(path, ["eval.attempts='3'"]).eval_attempts == "3"


def test_eval_takes_a_recipes_tokenizer_and_its_revision_for_its_own_model_alone(tmp_path: Path):
    path = tmp_path / "r.toml"
    path.write_text('[model]\npath = "org/base"\ntokenizer = "org/other"\nrevision = "abc"\n[problems]\ntrain = "builtin:guess"\n')
    own, other = (_eval_recipe(model, path, None, [], {}).model for model in ("org/base", "org/trained"))
    assert (own.path, own.tokenizer, own.revision) == ("org/base", "org/other", "abc")
    assert (other.path, other.tokenizer, other.revision) == ("org/trained", "org/other", None)
