"""What the tests of a report's parts share: its sections, their curves, and arms to make them of."""

import base64
import gzip
import json
import re

import numpy as np
from arms_on_disk import full_evaluation, training, write_evaluation, write_run
from fake_dialogues import FakePlayer, problem

from mulligan.evaluation import evaluate
from mulligan.evaluation.arms import read_arms
from mulligan.evaluation.results import write_evaluation as write_evaluated
from mulligan.report.evidence import Evidence
from mulligan.report.sections import evaluation_sections
from mulligan.report.training import training_sections


def sections_of(*folders, baseline=None):
    evidence = Evidence(read_arms([str(f) for f in folders], need_evaluation=False), baseline)
    return {s.id: s for s in (*evaluation_sections(evidence), *training_sections(evidence))}


def curves(section, chart=0, panel=0):
    return {c.label: c for c in section.charts[chart].panels[panel].curves}


def played_seed(folder, seed, *, learns, attempts="uniform(1,2)", samples=8, right=lambda g: g % 4 == 0):
    """A run with a real evaluation of a scripted player on 40 problems. Samples: one of four is right, 2 tokens each. Dialogues of an arm that learns: with two attempts 12 + 4 * seed problems
    are solved, all at the second; of another none is. Told that it was wrong, a right answer (20 of 40 problems) stands in 10 + 2 * seed cases."""
    write_run(folder, seed=seed, attempts=attempts)

    def script(i, k, g):
        if player.calls[-1]["group_size"] > 1:
            return ["c"] if right(g) else ["w"]
        return ["w", "c"][:k] if learns and i < 12 + 4 * seed else ["w"] * k

    told = {"false_wrong": lambda i, k, g: (["c", "c"] if i < 10 + 2 * seed else ["c", "w"]) if i < 20 else ["w", "w"]}
    player = FakePlayer(script, conditions=told)
    result = evaluate(player, [problem(i) for i in range(40)], name="s", attempts=(1, 2), samples=samples, controls=("false_wrong",))
    write_evaluated(folder, [result], model=str(folder))
    return result


def page_data(text):
    packed = re.search(r'id="page-data">([^<]*)<', text)
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def three_arms(tmp_path):
    """Three seeds of a multi-attempt arm and one single-turn run, each on two sets, with evaluations on the way."""
    for seed in range(3):
        write_run(tmp_path / f"multi{seed}", seed=seed, metrics=training(6 + seed, reward=0.5 + 0.1 * seed))
        full_evaluation(tmp_path / f"multi{seed}", seed=seed, sets=("one", "two"))
        for step in (2, 4):
            full_evaluation(tmp_path / f"multi{seed}" / f"eval_{step:06d}", seed=seed, sets=("one",), rates=(0.1 * step, 0.15 * step, 0.2 * step))
    write_run(tmp_path / "single", attempts="fixed(1)", metrics=training(9), command=["/usr/bin/mulligan", "train", "a b.toml"])
    full_evaluation(tmp_path / "single", seed=7, sets=("one", "two"), rates=(0.42, 0.43, 0.43, 0.44, 0.44))
    return [tmp_path / name for name in ("multi0", "multi1", "multi2", "single")]


def controlled(tmp_path, more=None, fewest=1, **kept):
    """An arm that goes from 25 to 75 % of 200 problems from the fewest attempts evaluated to three, of which a control keeps so much."""
    first, last = np.arange(200) % 4 == 0, np.arange(200) % 4 != 3
    quantities = {"solved": {fewest: first, 3: last}, "passed": {fewest: [0.25] * 200, 3: [0.3] * 200}}
    for control, share in kept.items():
        quantities[f"solved:{control}"] = {fewest: first, 3: np.where(np.arange(200) < 200 * share, last, first)}
    table = {"controls": {control: {"accuracy": {}, "difference": {}} for control in kept}}
    write_run(tmp_path / "m")
    write_evaluation(tmp_path / "m", {"one": quantities, "two": quantities}, more=table | (more or {}))
    return Evidence(read_arms([str(tmp_path / "m")]))
