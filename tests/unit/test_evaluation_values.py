"""values.parquet: what is paired over problems is read back as it was; rivals are paired problem by problem."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arms_on_disk import write_run
from fake_dialogues import FakePlayer, problem, rollout

from mulligan.config import parse_recipe
from mulligan.errors import ConfigError, RunError
from mulligan.evaluation import evaluate, read_rivals, read_values, settings_of, write_evaluation
from mulligan.evaluation.arms import read_arms
from mulligan.evaluation.attempts import ANSWERED_AGAIN, RATES, REPEATED, attempt_counts
from mulligan.evaluation.faults import rival_warnings
from mulligan.evaluation.samples import TALLIED
from mulligan.evaluation.values import ProblemValues, aligned, in_common

PROBLEMS = [problem(i) for i in range(12)]


def script(i, k, g):
    return ["u"] if i == 0 else ["c"] if i < 5 else ["w", "c"][:k] if i < 8 else ["w"] * k


def evaluation(problems=PROBLEMS, name="twelve", samples=4, **more):
    return evaluate(FakePlayer(script), problems, name=name, attempts=(1, 2), samples=samples, temperatures=(0.5, 1.0), controls=("history_blind",), **more)


def write(folder, *evaluations, **head):
    write_evaluation(folder, evaluations, **{"model": "m", **head})
    return folder


SAMPLED = {f"{part}@{temperature}" for part in TALLIED for temperature in (0.5, 1.0)}
COUNTED = {"attempts_used", REPEATED, ANSWERED_AGAIN} | {quantity for pair in RATES.values() for quantity in pair}


def test_values_are_read_back_as_they_were(tmp_path):
    result, other = evaluation(), evaluation(PROBLEMS[3:6], name="three")
    found = read_values(write(tmp_path, result, other))
    assert list(found) == ["twelve", "three"]
    values = found["twelve"]
    assert values.problem_ids == tuple(p.id for p in PROBLEMS)
    assert set(values.quantities) == {"solved", "tokens", "passed", "passed@0.5", "passed@1.0", "solved:history_blind", "tokens:history_blind"} | COUNTED | SAMPLED
    for quantity, by_k in result.values.quantities.items():
        assert list(values.quantities[quantity]) == [*by_k] == ([1] if quantity in SAMPLED else [1, 2])
        for k, expected in by_k.items():
            assert np.array_equal(values.quantities[quantity][k], expected, equal_nan=True)
    assert found["three"].problem_ids == ("p3", "p4", "p5")
    assert read_values(tmp_path / "values.parquet").keys() == found.keys()


def test_the_rows_of_the_file(tmp_path):
    table = pq.read_table(write(tmp_path, evaluation()) / "values.parquet")
    assert table.schema.names == ["problem_set", "quantity", "k", "problem_id", "value"]
    assert [str(t) for t in table.schema.types] == ["string", "string", "int32", "string", "double"]
    assert len(table) == ((7 + len(COUNTED)) * 2 + len(SAMPLED)) * 12, "the samples of two temperatures are counted once, not for each k"
    rows = [r for r in table.to_pylist() if (r["quantity"], r["k"]) == ("solved", 2)]
    assert [r["value"] for r in rows] == [None, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], "null: could not be graded"
    tokens = {r["problem_id"]: r["value"] for r in table.to_pylist() if (r["quantity"], r["k"]) == ("tokens", 2)}
    assert (tokens["p1"], tokens["p6"], tokens["p9"]) == (2, 5, 5)


def test_without_samples_or_controls_there_is_less(tmp_path):
    result = evaluate(FakePlayer(script), PROBLEMS, name="x", attempts=(1,))
    assert set(read_values(write(tmp_path, result))["x"].quantities) == {"solved", "tokens"} | COUNTED


def test_what_is_counted_at_each_attempt(tmp_path):
    scripts = [["w:1", "w: 1 ", "n"], ["c"], ["t", "w:2", "u"]]
    values = evaluate(FakePlayer(lambda i, k, g: scripts[i]), PROBLEMS[:3], name="x", attempts=(3,)).values.quantities
    expected = {
        "made": [[1, 1, 1], [1, 0, 1], [1, 0, 1]],
        "graded": [[1, 1, 1], [1, 0, 1], [1, 0, 0]],
        "correct": [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
        "answered_again": [[0, 0, 0], [1, 0, 1], [0, 0, 0]],
        "repeated": [[0, 0, 0], [1, 0, 0], [0, 0, 0]],
        "missing": [[0, 0, 0], [0, 0, 0], [1, 0, 0]],
        "cut": [[0, 0, 1], [0, 0, 0], [0, 0, 0]],
    }
    assert {name: [values[f"attempts:{name}"][t].tolist() for t in (1, 2, 3)] for name in expected} == expected
    np.testing.assert_array_equal(values["attempts_used"][3], [3, 1, np.nan])  # one that could not be graded ended there
    np.testing.assert_array_equal(values["tokens"][3], [2 + 3 + 4, 2, np.nan])


def test_an_answer_that_could_not_be_graded_is_no_repeat():
    """Its verdict may hold the answer all the same: it counts neither as an answer nor as a repeated one."""
    played = rollout(PROBLEMS[0], ["w:1", "u", "w:1"])
    first, broken, last = played.attempts
    broken = replace(broken, verdict=replace(broken.verdict, answer="1"))
    counts = attempt_counts([replace(played, attempts=(first, broken, last))], 3)
    assert [int(counts["attempts:answered_again"][t][0]) for t in (1, 2, 3)] == [0, 0, 1]
    assert [int(counts["attempts:repeated"][t][0]) for t in (1, 2, 3)] == [0, 0, 1]


def test_what_is_not_a_file_of_values(tmp_path):
    with pytest.raises(RunError, match=r"values\.parquet: no such file; evaluate with this version"):
        read_values(tmp_path)
    (tmp_path / "values.parquet").write_text("x")
    with pytest.raises(RunError, match="not a readable Parquet file"):
        read_values(tmp_path)
    pq.write_table(pa.table({"problem_set": ["x"]}), tmp_path / "values.parquet")
    with pytest.raises(RunError, match="column 'quantity' is missing"):
        read_values(tmp_path)
    table = pq.read_table(write(tmp_path / "good", evaluation()) / "values.parquet")
    pq.write_table(table.slice(1), tmp_path / "values.parquet")
    with pytest.raises(RunError, match="the quantities of 'twelve' are not of the same problems"):
        read_values(tmp_path)


def test_problems_are_matched_by_id_and_namesakes_in_their_order():
    assert aligned(["a", "b", "a"], ["b", "a", "a"]).tolist() == [1, 0, 2]
    assert aligned(["a", "b"], ["a", "c"]) is None
    assert aligned(["a"], ["a", "a"]) is None
    assert in_common(["a", "b", "a"], ["a", "c", "b"]) == 2


# ----------------------------------------------------------------------------------------------------------------- rivals


def always(i, k, g):
    return ["c"] if g % 2 == 0 else ["w"]


def rival(folder, problems=PROBLEMS, name="twelve", samples=4, **head):
    """Right with every other sample: pass@1 = 0.5, pass@2 = 1 - (2/4)(1/3) = 5/6."""
    return write(folder, evaluate(FakePlayer(always), problems, name=name, attempts=(1, 2), samples=samples), **head)


def test_gain_over_a_rival_is_paired(tmp_path):
    rivals = read_rivals([f"warm-up={rival(tmp_path / 'w', PROBLEMS[::-1], name='elsewhere')}", f"single={rival(tmp_path / 's', model='s')}"])
    result = evaluation(rivals=rivals)
    table = result.to_json()["rivals"]
    assert list(table) == ["warm-up", "single"]
    assert (table["single"].pop("model"), table["warm-up"].pop("model")) == ("s", "m"), "which models they are stands beside the figures"
    assert table["warm-up"] == table["single"], "whatever the order of its problems, or the name of the set"
    assert table["single"]["pass_at_k"]["2"]["mean"] == pytest.approx(5 / 6)
    assert table["single"]["accuracy"]["1"]["mean"] == 1.0
    # problem p0 could not be graded here, and takes no part
    assert table["single"]["gain"]["1"]["mean"] == pytest.approx(4 / 11 - 0.5)
    assert table["single"]["gain"]["2"]["n"] == 11
    assert table["single"]["gain"]["2"]["mean"] == pytest.approx(7 / 11 - 5 / 6)


def test_a_rival_that_was_sampled_too_little_is_warned_of(tmp_path):
    """Eight samples for two attempts are enough, four are not, and one temperature never is."""
    rivals = read_rivals([f"few={rival(tmp_path / 'f')}", f"enough={rival(tmp_path / 'e', samples=8)}"])
    one = read_rivals([f"one={write(tmp_path / 'o', evaluate(FakePlayer(always), PROBLEMS, name='twelve', attempts=(1,), samples=4, temperatures=(0.5, 1.0)))}"])
    assert [w for w in evaluation(samples=0, rivals=one).warnings if "rival" in w] == [
        "twelve, rival one: its pass@k stops at k = 1: evaluate it with --attempts up to 2, and with as many samples or more"
    ]
    uncounted = ProblemValues(tuple(p.id for p in PROBLEMS), {q: by_k for q, by_k in rivals[0].sets["twelve"].quantities.items() if not q.startswith("samples:")})
    assert rival_warnings("twelve", "old", uncounted, 2) == []
    warnings = [w for w in evaluation(samples=0, rivals=rivals).warnings if "rival" in w]
    assert [w.split(":")[0] for w in warnings] == ["twelve, rival few", "twelve, rival few", "twelve, rival enough"]
    assert "all samples were drawn at temperature 1" in warnings[0] and "all samples were drawn at temperature 1" in warnings[2]
    assert "pass@2 from 4 samples a problem is rough" in warnings[1] and "draw 8 or more" in warnings[1]


RECIPE = {"model": {"path": "m"}, "problems": {"train": "builtin:guess"}, "protocol": {"max_attempt_tokens": 20, "max_dialogue_tokens": 100}}


def changed(changes):
    """`settings_of` the recipe with some of it changed."""
    return settings_of(parse_recipe({section: {**table, **changes.get(section, {})} for section, table in {"protocol": {}, "grader": {}, **RECIPE}.items()}))


def warned_of(tmp_path, there, here, top_p=1.0, model="other"):
    """What is said of a rival's settings `there` in an evaluation by those `here`."""
    drawn = evaluate(FakePlayer(always), PROBLEMS, name="twelve", attempts=(1, 2), samples=8, temperatures=(0.5, 1.0, 1.5), top_p=top_p)
    folder = write(tmp_path / "r", drawn, settings=there, model=model)
    (said,) = ([w for w in evaluation(rivals=read_rivals([f"single={folder}"]), settings=here).warnings if "rival" in w] or [""])
    return said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"protocol": {"max_attempt_tokens": 1}}, "protocol.max_attempt_tokens: 20 and 1"),
        ({"protocol": {"system": "Guess."}, "grader": {"kind": "text"}}, "protocol.system: {system!r} and 'Guess.'; grader.kind: None and 'text'"),
        ({"model": {"path": "other", "dtype": "bfloat16"}}, "model.dtype: 'float32' and 'bfloat16'"),
        ({"protocol": {"state_budget": False, "budget_text": "{n}!"}}, "protocol.state_budget: True and False; protocol.budget_text: {budget_text!r} and '{{n}}!'"),
    ],
)
def test_a_rival_whose_samples_were_drawn_otherwise_is_warned_of(tmp_path, changes, told):
    here = changed({})
    said = f"twelve, rival single: its samples were not drawn as they are here ({told.format(**here['protocol'])}): evaluate both alike"
    assert warned_of(tmp_path, changed(changes), here) == said


def test_a_rival_drawn_from_fewer_tokens_is_warned_of(tmp_path):
    """Also where its settings are not known."""
    assert warned_of(tmp_path, {}, changed({}), top_p=0.5) == "twelve, rival single: its samples were not drawn as they are here (top_p: 1.0 and 0.5): evaluate both alike"


def test_a_rivals_settings_that_no_sample_depends_on_are_not_warned_of(tmp_path):
    """A sample is a single attempt: it sees no feedback, and no dialogue's cap where that ended none of them."""
    changes = {"model": {"path": "other"}, "protocol": {"feedback": "verdict", "history": "none", "hidden_feedback": "No.", "max_dialogue_tokens": 60}, "grader": {"hints": True, "workers": 3}}
    assert warned_of(tmp_path, changed(changes), changed({})) == ""
    unstated = {"state_budget": False}
    assert warned_of(tmp_path, changed({"protocol": {**unstated, "budget_text": "{n}!"}}), changed({"protocol": unstated})) == ""
    assert warned_of(tmp_path, {}, changed({})) == warned_of(tmp_path, changed({}), {}) == "", "not known of one of the two"


def test_the_dialogues_cap_is_warned_of_where_it_ended_samples_of_the_rival(tmp_path):
    assert warned_of(tmp_path, changed({"protocol": {"max_dialogue_tokens": 60}}), changed({})) == ""
    table = json.loads((tmp_path / "r" / "eval.json").read_text())
    table["problem_sets"]["twelve"]["starved"]["samples"] = 3
    (tmp_path / "r" / "eval.json").write_text(json.dumps(table))
    warnings = evaluation(rivals=read_rivals([f"single={tmp_path / 'r'}"]), settings=changed({})).warnings
    assert any("(protocol.max_dialogue_tokens: 100 and 60)" in text for text in warnings)


def test_a_rival_that_is_the_same_model_is_warned_of(tmp_path):
    """Under another name of its folder as well; of another revision it is another model."""
    said = "twelve, rival single: it is the same model once more, and says nothing of what training did; give the evaluation of another one"
    here, revised = changed({}), changed({"model": {"path": "m", "revision": "v2"}})
    assert warned_of(tmp_path, here, here, model="./m") == said
    assert warned_of(tmp_path, revised, here, model="m") == warned_of(tmp_path, here, here, model="") == ""


def test_a_rival_that_is_a_run_is_read_as_everywhere_else(tmp_path):
    """Of a run the evaluation in RUN/eval counts, which reports and comparisons read as well; not the rough one of its training."""
    write_run(tmp_path / "run")
    rival(tmp_path / "run", PROBLEMS[:3])
    rival(tmp_path / "run" / "eval")
    (one,) = read_rivals([f"single={tmp_path / 'run'}"])
    assert one.folder == tmp_path / "run" / "eval"
    assert len(one.sets["twelve"].problem_ids) == 12


def test_a_set_whose_name_is_not_utf8_can_be_written(tmp_path):
    """A file's name in another encoding, as Python holds it."""
    write(tmp_path, evaluate(FakePlayer(always), PROBLEMS, name="f\udce9.jsonl", attempts=(1,)))
    (arm,) = read_arms([str(tmp_path)])
    assert arm.problem_sets == list(read_values(tmp_path)) == ["f?.jsonl"]
    assert len(arm.problems("f?.jsonl")) == 12


def test_gain_over_a_rival_takes_each_problems_own_value(tmp_path):
    """The rival solves exactly what this model does not (its problems stand in reverse): differences of 1 and -1, no two alike."""

    def other(i, k, g):
        return ["w"] if script(11 - i, 1, 0) == ["c"] else ["c"]

    back = write(tmp_path, evaluate(FakePlayer(other), PROBLEMS[::-1], name="twelve", attempts=(1,), samples=4))
    gain = evaluation(rivals=read_rivals([f"a={back}"])).rivals["a"].gain[1]
    assert gain.mean == pytest.approx((4 - 7) / 11)
    assert gain.width > 0.8


def test_a_rival_on_other_problems_is_refused_before_anything_is_played(tmp_path):
    player = FakePlayer(script)
    rivals = read_rivals([f"single={rival(tmp_path / 's', PROBLEMS[2:])}"])
    with pytest.raises(ConfigError, match=r"--rival single=.* was evaluated on other problems than twelve: 10 in common, of 12 here and 10 there"):
        evaluate(player, PROBLEMS, name="twelve", attempts=(1,), rivals=rivals)
    bare = read_rivals([f"single={rival(tmp_path / 'b', samples=0)}"])
    with pytest.raises(ConfigError, match="has no pass@k on twelve: evaluate it with --samples"):
        evaluate(player, PROBLEMS, name="twelve", attempts=(1,), rivals=bare)
    assert player.calls == []


def test_rivals_are_written_label_equals_folder(tmp_path):
    folder = rival(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_rivals(["single", "=x", f"a={folder}", f"a={folder}"])
    assert caught.value.faults == [
        "--rival single: write LABEL=FOLDER, with the folder of its evaluation",
        "--rival =x: write LABEL=FOLDER, with the folder of its evaluation",
        "--rival a=... is given twice: give each its own label",
    ]
    with pytest.raises(RunError, match="none holds neither a run nor an evaluation"):
        read_rivals([f"a={tmp_path / 'none'}"])
    (folder / "values.parquet").rename(folder / "gone.parquet")
    with pytest.raises(RunError, match=r"values\.parquet: no such file; evaluate with this version first"):
        read_rivals([f"a={folder}"])
    (folder / "gone.parquet").rename(folder / "values.parquet")
    assert [r.label for r in read_rivals([f"a b={folder}"])] == ["a b"]
