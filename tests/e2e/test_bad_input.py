"""Whatever a user gets wrong, the answer is one clear line, status 2, and no traceback; through `main`, as the command runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mulligan.cli import main


@dataclass
class Result:
    status: int
    out: str
    errors: list[str]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in an empty folder; everything on standard error counts, whoever wrote it."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        capfd.readouterr()
        status = main(arguments)
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err.splitlines())

    return call


def one_line(result: Result) -> str:
    """The one line that was said; fails if there was more, or if the status does not say that it failed."""
    assert result.status == 2
    assert len(result.errors) == 1, result.errors
    assert result.errors[0].startswith("error: ")
    return result.errors[0].removeprefix("error: ")


def write_recipe(name: str = "r.toml", *, source: str = "builtin:guess", model: str = "tiny:", more: str = "") -> str:
    Path(name).write_text(f"{more}\n[model]\npath = {json.dumps(model)}\n[problems]\ntrain = {json.dumps(source)}\n")
    return name


def write_problems(name: str, *rows: dict[str, str]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def both(command: str) -> list[str]:
    """The same fault has to be found by `check` and by `train`."""
    return [command, "--out", "out"] if command == "train" else [command]


COMMANDS = pytest.mark.parametrize("command", ["check", "train"])


# ----------------------------------------------------------------------------------------------------------------- recipes


@COMMANDS
def test_missing_recipe(run: Callable[..., Result], command: str) -> None:
    assert one_line(run(*both(command), "none.toml")) == "none.toml: no such recipe"


@COMMANDS
def test_unknown_key_with_the_nearest_known_one(run: Callable[..., Result], command: str) -> None:
    recipe = write_recipe(more="[optimizer]\nlearning_rat = 1e-5\nlr = 1e-5\n[train]\ngroup_sice = 4")
    result = run(*both(command), recipe)
    assert result.status == 2
    assert result.errors == [
        "error: r.toml: unknown key 'optimizer.learning_rat'; known keys: betas, decay, eps, final, grad_clip, lr, muon_lr, name, schedule, warmup, weight_decay",
        "error: r.toml: unknown key 'train.group_sice'; did you mean 'group_size'?",
    ]
    assert not Path("out").exists()


@COMMANDS
def test_unknown_key_in_an_override(run: Callable[..., Result], command: str) -> None:
    assert "unknown key 'optimizer.lrr'; did you mean 'lr'?" in one_line(run(*both(command), write_recipe(), "optimizer.lrr=1"))


@COMMANDS
def test_a_key_of_another_section(run: Callable[..., Result], command: str) -> None:
    assert one_line(run(*both(command), write_recipe(), "lr=1e-5")).endswith("unknown key 'lr'; did you mean 'critic.lr' or 'optimizer.lr' or 'warmup.optimizer.lr'?")
    assert "did you mean 'warmup.steps' or 'train.steps'?" in one_line(run(*both(command), write_recipe(), "steps=3"))


@COMMANDS
def test_a_folder_is_no_recipe(run: Callable[..., Result], command: str) -> None:
    Path("r").mkdir()
    assert one_line(run(*both(command), "r")) == "r is a folder: name a recipe, a .toml file"


def test_steps_that_do_not_end_the_run(run: Callable[..., Result]) -> None:
    recipe = write_recipe(more="train.max_tokens = 9000")
    warning = "warning: train.steps=3 does not end this run, whose recipe has train.max_tokens = 9000: set train.max_tokens instead, or train.max_tokens=null as well"
    assert run("check", recipe, "train.steps=3", "--dry-run").errors == [warning]
    for fine in (["train.steps=0"], ["train.steps=3", "train.max_tokens=null"], ["train.steps=3", "train.max_tokens=500"], ["train.max_tokens=500"]):
        assert run("check", recipe, *fine, "--dry-run").errors == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("steps", "did you mean 'warmup.steps' or 'train.steps'?"),
        ("train.stepz", "did you mean 'train.steps'?"),
        ("trian", "did you mean 'train'?"),
        ("nonsense", "use name, seed, attempts, model"),
    ],
)
def test_a_setting_that_is_none(run: Callable[..., Result], name: str, meant: str) -> None:
    assert one_line(run("settings", name)).startswith(f"no setting begins with '{name}': {meant}")


def test_more_seeds_than_an_experiment_has(run: Callable[..., Result]) -> None:
    assert one_line(run("reproduce", "readings", "--seeds", "99", "--minutes", "0")) == "--seeds 99: readings has 5; give fewer, or add to `seeds` in a copy of its file"


@COMMANDS
def test_unknown_estimator(run: Callable[..., Result], command: str) -> None:
    line = one_line(run(*both(command), write_recipe(), "advantage.name=grop"))
    assert line.startswith("r.toml: advantage.name: 'grop' is not known; use 'gae', 'grpo', 'dr_grpo', 'rloo', 'pass@k', 'reinforce++' or 'attempt'")
    assert "did you mean 'grpo'?" in line


@COMMANDS
@pytest.mark.parametrize("budget", ["fixed(0)", "uniform(0,3)", "0"])
def test_budget_of_zero(run: Callable[..., Result], command: str, budget: str) -> None:
    assert "a budget must allow at least 1 attempt" in one_line(run(*both(command), write_recipe(), f"attempts={budget}"))


def test_every_fault_of_a_recipe_has_its_own_line(run: Callable[..., Result]) -> None:
    result = run("train", write_recipe(), "attempts=fixed(0)", "advantage.name=x", "loss.klx=1", "--out", "out")
    assert result.status == 2
    assert len(result.errors) == 3


def test_faults_beyond_the_recipe_come_together_too(run: Callable[..., Result]) -> None:
    """A missing data file, a model folder that does not exist and a text with an unknown field, in one answer."""
    recipe = write_recipe(source="none.jsonl", model="./no/model")
    result = run("check", recipe, "protocol.question={questoin}")
    assert result.status == 2
    for part in ("none.jsonl", "./no/model", "questoin"):
        assert any(part in line for line in result.errors), part


# ------------------------------------------------------------------------------------------------------------------- data


@COMMANDS
def test_missing_file(run: Callable[..., Result], command: str) -> None:
    line = one_line(run(*both(command), write_recipe(source="none.jsonl")))
    assert re.search(r"none\.jsonl.*(no such file|does not exist|not found)", line)
    assert not Path("out").exists()


@COMMANDS
def test_wrong_column(run: Callable[..., Result], command: str) -> None:
    write_problems("p.jsonl", {"question": "1+1?", "answer": "2"})
    line = one_line(run(*both(command), write_recipe(source="p.jsonl?question=prompt")))
    assert "p.jsonl" in line
    assert "'prompt'" in line
    assert "question" in line.split("'prompt'", 1)[1], "it should say which columns there are"


@COMMANDS
def test_broken_json_line_with_its_number(run: Callable[..., Result], command: str) -> None:
    write_problems("p.jsonl", *[{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(3)])
    with Path("p.jsonl").open("a") as file:
        file.write('{"question": "9+1?", "answer"\n')
    line = one_line(run(*both(command), write_recipe(source="p.jsonl")))
    assert re.search(r"p\.jsonl\D+4\b", line)


@COMMANDS
def test_empty_data_set(run: Callable[..., Result], command: str) -> None:
    Path("p.jsonl").write_text("")
    line = one_line(run(*both(command), write_recipe(source="p.jsonl")))
    assert re.search(r"p\.jsonl.*(no problems|empty)", line)


@COMMANDS
@pytest.mark.parametrize("source", ["builtin:gess", "gym:no_such_task", "ftp:x"])
def test_unknown_source(run: Callable[..., Result], command: str, source: str) -> None:
    assert source.partition(":")[2] in one_line(run(*both(command), write_recipe(source=source)))


@COMMANDS
def test_prompt_longer_than_the_context(run: Callable[..., Result], command: str) -> None:
    write_problems("p.jsonl", {"question": "1 + 1 = ? " * 200, "answer": "2"})
    result = run(*both(command), write_recipe(source="p.jsonl"), "protocol.max_attempt_tokens=16", "protocol.max_dialogue_tokens=64")
    line = one_line(result)
    assert "p.jsonl" in line
    assert re.search(r"\d+ tokens", line)
    assert "64" in line
    assert not Path("out").exists()


# ------------------------------------------------------------------------------------------------------------------ models


def model_folder() -> str:
    folder = Path("model")
    folder.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32, "hidden_size": 8}
    config |= {"intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    return "./model"


@COMMANDS
def test_model_folder_without_weights(run: Callable[..., Result], command: str) -> None:
    line = one_line(run(*both(command), write_recipe(model=model_folder())))
    assert re.search(r"\./model: no weights \(\*\.safetensors\)", line)


def test_evaluating_a_model_folder_without_weights(run: Callable[..., Result]) -> None:
    write_problems("p.jsonl", {"question": "1+1?", "answer": "2"})
    line = one_line(run("eval", model_folder(), "--problems", "p.jsonl", "--out", "out"))
    assert re.search(r"\./model: no weights \(\*\.safetensors\)", line)


@COMMANDS
def test_missing_model_folder(run: Callable[..., Result], command: str) -> None:
    assert "./nowhere" in one_line(run(*both(command), write_recipe(model="./nowhere")))


@COMMANDS
def test_model_folder_with_an_impossible_configuration(run: Callable[..., Result], command: str) -> None:
    folder = Path(model_folder())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 3}))
    (folder / "model.safetensors").write_bytes(b"")
    result = run(*both(command), write_recipe(model="./model"))
    assert result.status == 2
    assert all(line.startswith("error: ./model: ") for line in result.errors), result.errors


# -------------------------------------------------------------------------------------------------------------------- runs


def test_an_existing_run_is_not_overwritten(run: Callable[..., Result]) -> None:
    Path("out").mkdir()
    Path("out/recipe.json").write_text("{}")
    line = one_line(run("train", write_recipe(), "--out", "out"))
    assert line == "out already holds a run: go on with it by --resume, or choose another --out"


def test_resuming_where_there_is_no_run(run: Callable[..., Result]) -> None:
    assert "nowhere holds no run" in one_line(run("train", write_recipe(), "--out", "nowhere", "--resume"))


def test_a_folder_that_is_not_there_and_reads_like_an_id_of_the_hub(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr("mulligan.model.load.AutoConfig.from_pretrained", unreachable)
    line = one_line(run("check", write_recipe(model="runs/mispelt")))
    assert line.endswith("there is no folder of this name here, so it was looked for on the Hub: check the name and the connection")


def test_an_evaluation_takes_no_other_models_place(run: Callable[..., Result]) -> None:
    """RUN/eval is read as the run's; and hours of another model's evaluation are not written over."""
    train = ("warmup.steps=0", "train.steps=1", "train.problems_per_step=2", "train.group_size=1", "protocol.max_attempt_tokens=8")
    for name in ("a", "b"):
        assert run("train", write_recipe(), "--out", name, *train).status == 0
    play = ("--problems", "builtin:guess?split=test", "--limit", "2", "--attempts", "1", "--samples", "0")
    assert one_line(run("eval", "a", "--out", "b/eval", *play)) == "--out b/eval is read as the evaluation of the run b, and a is another model: choose another --out"
    assert "is read as the evaluation of the run b" in one_line(run("eval", "a", "--out", "b", *play))
    assert run("eval", "a", "--out", "a/eval", *play).status == 0
    assert run("eval", "a", "--out", "a/eval", *play).status == 0, "again, as after another training"
    assert run("eval", "a", "--out", "elsewhere", *play).status == 0
    assert one_line(run("eval", "b", "--out", "elsewhere", *play)) == "--out elsewhere holds the evaluation of a, and b is another model: choose another --out"
    result = run("eval", "a/model", "--out", "by-default", *play)
    assert result.status == 0 and result.errors[0].startswith("warning: a/model alone does not bring its run's recipe"), result.errors
    assert one_line(run("train", write_recipe(), "--out", "elsewhere", *train)) == "elsewhere holds an evaluation: choose another --out"


def test_evaluating_without_problems(run: Callable[..., Result]) -> None:
    folder = model_folder()
    assert "it holds no run, whose problems would be taken; name a folder that mulligan train made, or give --problems SOURCE" in one_line(run("eval", folder, "--out", "out"))
    line = one_line(run("eval", folder, "--problems", "p.jsonl", "--problems", "p.jsonl", "--out", "out"))
    assert line.endswith("--problems p.jsonl is given twice: drop one")


def test_evaluating_with_no_attempts(run: Callable[..., Result]) -> None:
    write_problems("p.jsonl", {"question": "1+1?", "answer": "2"})
    line = one_line(run("eval", model_folder(), "--problems", "p.jsonl", "--attempts", "0-3", "--out", "out"))
    assert "a budget of 0 attempts allows no answer" in line


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--top-p", "0"], "--top-p 0: give a probability above 0, and 1 for the whole distribution"),
        (["--temperatures", "0.6,warm"], "--temperatures 0.6,warm: write numbers with commas, e.g. 0.6,0.8,1.0,1.2"),
        (["--temperatures", "0,1"], "--temperatures 0,1: greedy samples are all alike and say nothing of pass@k; give temperatures above 0"),
        (["--controls", "history_blnd"], "--controls: 'history_blnd' is not known; did you mean 'history_blind'?"),
        (["--controls", "all", "--attempts", "1"], "controls change what a second attempt sees: evaluate with 2 attempts or more, or without controls"),
        (["--rival", "single"], "--rival single: write LABEL=FOLDER, with the folder of its evaluation"),
        (["--rival", "single=nowhere"], "nowhere holds neither a run nor an evaluation: name a folder that mulligan train or mulligan eval wrote"),
    ],
)
def test_evaluation_options_that_cannot_be(run: Callable[..., Result], options: list[str], fault: str) -> None:
    write_problems("p.jsonl", {"question": "1+1?", "answer": "2"})
    Path("nowhere").mkdir()
    assert one_line(run("eval", model_folder(), "--problems", "p.jsonl", "--out", "out", *options)) == fault
    assert not Path("out").exists()


def test_a_set_that_cannot_be_evaluated_leaves_no_half_of_an_evaluation(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read as a model's evaluation holds all that was asked for; the dialogues of the first set are kept for the next try."""
    Path("shaky.py").write_text("def say(problem, attempts, attempts_left):\n    if 'codes' in problem.source:\n        raise KeyError('no hint')\n    return 'wrong'\n")
    monkeypatch.syspath_prepend(".")
    sets = ("--problems", "builtin:guess?split=test", "--problems", "builtin:codes?split=test", "--limit", "2", "--attempts", "2", "--out", "out")
    assert run("train", write_recipe(), "--out", "r", "warmup.steps=0", "train.steps=1", "train.problems_per_step=2", "train.group_size=1").status == 0
    result = run("eval", "r", *sets, "protocol.feedback=shaky:say", "protocol.max_attempt_tokens=8")
    assert result.status == 2 and result.errors[-1] == "error: every dialogue of step 2 broke, the first with: feedback: KeyError: 'no hint'; mend protocol.feedback"
    assert not Path("out/eval.json").exists() and list(Path("out").rglob("*.parquet"))


def test_training_of_which_every_dialogue_breaks(run: Callable[..., Result]) -> None:
    Path("broken.py").write_text("def say(problem, attempts, attempts_left):\n    raise KeyError('no hint')\n")
    changes = ("protocol.feedback=broken:say", "attempts=fixed(5)", "train.problems_per_step=2", "train.group_size=1", "protocol.max_attempt_tokens=8", "warmup.steps=0")
    result = run("train", write_recipe(), "--out", "out", *changes)
    assert result.status == 2 and result.errors[-1] == "error: every dialogue of step 0 broke, the first with: feedback: KeyError: 'no hint'; mend protocol.feedback"
    assert any("raised KeyError: 'no hint' on the made-up answer" in line for line in result.errors[:-1]), "it was said before anything was played"


def test_training_whose_failed_dialogues_break(run: Callable[..., Result]) -> None:
    """Those with one attempt need no feedback: without the others it would look as if all went well."""
    Path("broken.py").write_text("def say(problem, attempts, attempts_left):\n    raise KeyError('no hint')\n")
    changes = ("protocol.feedback=broken:say", "attempts=uniform(1,2)", "train.problems_per_step=8", "train.group_size=1", "protocol.max_attempt_tokens=8", "warmup.steps=0")
    result = run("train", write_recipe(), "--out", "out", *changes)
    assert result.status == 2
    assert re.fullmatch(
        r"error: step 0: dialogues broke after (\d+) of \1 failed attempts so far \(now with: feedback: KeyError: 'no hint'\); mend protocol\.feedback or raise grader\.max_failure_rate",
        result.errors[-1],
    )
    assert Path("out/rollouts/step_000000.parquet").exists(), "the evidence stays"


def test_arms_that_contradict_each_other(run: Callable[..., Result]) -> None:
    assert "contradict" in one_line(run("train", write_recipe(), "--baseline", "--both-arms"))
    assert "drop either" in one_line(run("train", write_recipe(), "--baseline", "attempts=fixed(2)"))
    assert "both arms would be the same" in one_line(run("train", write_recipe(), "--both-arms", "attempts=fixed(1)"))


def test_viewing_what_is_not_there(run: Callable[..., Result]) -> None:
    assert one_line(run("view", "absent")).startswith("absent: no such file or folder; name a run folder")
    Path("empty").mkdir()
    assert one_line(run("view", "empty")).startswith("empty: no dialogues in this folder")
    Path("a.parquet").write_text("no")
    assert one_line(run("view", "a.parquet")).startswith("a.parquet: not a readable Parquet file")
    assert "'x' is no step" in one_line(run("view", "a.parquet", "--steps", "3,x"))
    assert not Path("view.html").exists()


# ----------------------------------------------------------------------------------------------------------------- grading


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "pairs.jsonl: no such file"),
        ("", "pairs.jsonl: no pairs in it"),
        ('{"gold": "1", "text": "x"}\n\n{"gold"\n', "pairs.jsonl, line 3: not valid JSON"),
        ('{"gold": "1", "text": "x"}\n{"gold": "1"}\n', "pairs.jsonl, line 2: 'text' must be there and be a string"),
        ('{"gold": 1, "text": "x"}\n', "pairs.jsonl, line 1: 'gold' must be there and be a string"),
        ("[1]\n", "pairs.jsonl, line 1: 'gold' must be there and be a string"),
    ],
)
def test_broken_pairs(run: Callable[..., Result], content: str | None, fault: str) -> None:
    if content is not None:
        Path("pairs.jsonl").write_text(content)
    result = run("grade", "--file", "pairs.jsonl")
    assert one_line(result).startswith(fault)
    assert result.out == "", "nothing is graded before the whole file is known to be good"


def test_grading_needs_a_pair_or_a_file(run: Callable[..., Result]) -> None:
    for arguments in ([], ["--gold", "1"], ["--gold", "1", "--text", "1", "--file", "x"], ["--gold", "1", "--file", "x"]):
        assert one_line(run("grade", *arguments)) == "give either --gold and --text, or --file"


def test_unknown_grader(run: Callable[..., Result]) -> None:
    assert "'maths'" in one_line(run("grade", "--gold", "1", "--text", "1", "--kind", "maths"))


def test_a_good_file_is_graded_in_order(run: Callable[..., Result]) -> None:
    write_problems("pairs.jsonl", {"gold": "1/2", "text": r"\boxed{0.5}"}, {"gold": "2", "text": r"\boxed{3}"}, {"gold": "2", "text": "2\u2028"}, {"gold": "a", "text": r"\boxed{a}", "kind": "text"})
    result = run("grade", "--file", "pairs.jsonl")
    assert result.status == 0
    verdicts = [json.loads(line) for line in result.out.splitlines()]
    assert [v["verdict"] for v in verdicts] == ["correct", "wrong", "no_answer", "correct"]
    assert all(set(v) == {"verdict", "reason", "answer", "ms"} for v in verdicts)
    assert verdicts[1]["answer"] == "3"


# ------------------------------------------------------------------------------------------------------------ command line


def test_usage_errors_name_the_command_that_was_meant(run: Callable[..., Result]) -> None:
    result = run("trian", "r.toml")
    assert result.status == 2
    assert "No such command 'trian'" in result.errors[-1]
    assert run("train").status == 2
    assert run("train", "r.toml", "--nonsense").status == 2


def test_interrupting_says_how_to_go_on(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mulligan.cli.training.load_recipe", interrupt)
    result = run("train", "r.toml")
    assert result.status == 130
    assert result.errors[-1] == "interrupted: the same command with --resume goes on from the last checkpoint"


def test_faults_are_found_without_torch() -> None:
    """In a process of its own, because the others have imported it."""
    script = "import sys; from mulligan.cli import main; status = main(['train', 'none.toml']); print('torch' in sys.modules, status)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False", "2"]
    assert done.stderr == "error: none.toml: no such recipe\n"


def test_the_installed_command_fails_with_the_same_line_and_status(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("mulligan")
    done = subprocess.run([command, "check", "none.toml"], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: none.toml: no such recipe\n")


@pytest.mark.parametrize("module", ["mulligan", "mulligan.cli"])
def test_the_package_runs_as_the_command_does(module: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", module, "check", "none.toml"], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: none.toml: no such recipe\n")


def test_looking_at_a_folder_runs_nothing_that_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("open('executed', 'w')\n")
    command = Path(sys.executable).with_name("mulligan")
    for arguments in (["view", "."], ["report", "."], ["compare", ".", "."]):
        done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert not (tmp_path / "executed").exists()


def test_a_function_beside_the_recipe_is_found_and_takes_no_librarys_place(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("open('executed', 'w')\n")
    (tmp_path / "mine.py").write_text("def say(problem, attempts, attempts_left):\n    return 'no'\n")
    (tmp_path / "r.toml").write_text('[model]\npath = "tiny:"\n[problems]\ntrain = "builtin:guess"\n')
    command = [Path(sys.executable).with_name("mulligan"), "check", "r.toml"]
    for name, status in (("mine:say", 0), ("absent:say", 2)):
        done = subprocess.run([*command, f"protocol.feedback={name}"], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
        assert done.returncode == status, done.stderr
    assert not (tmp_path / "executed").exists()


def test_a_figure_that_is_no_number(run: Callable[..., Result]) -> None:
    Path("e").mkdir()
    Path("e/eval.json").write_text('{"model": "m", "problem_sets": {"s": {"accuracy": {"1": {"mean": NaN, "low": 0.1, "high": 0.3, "n": 9}}}}}')
    assert one_line(run("report", "e", "--out", "r.html")) == "e/eval.json: not readable as JSON (NaN is no finite number); run mulligan eval again"
    assert not Path("r.html").exists()


@pytest.mark.parametrize("command", ["view", "report"])
def test_a_folder_is_no_page_to_write(run: Callable[..., Result], command: str) -> None:
    for out in (".", "/"):
        assert one_line(run(command, "r", "--out", out)) == f"--out {out} is a folder: name the file to write, say {Path(out) / f'{command}.html'}"


def test_what_would_act_on_a_terminal_is_shown(run: Callable[..., Result]) -> None:
    assert one_line(run("view", "a\x1b]0;title\x07\u202eb")) == "a⟨U+001B⟩]0;title⟨U+0007⟩⟨U+202E⟩b: no such file or folder; name a run folder, an evaluation's folder or a .parquet file of dialogues"
