"""The list of settings: every key that a recipe may have, written as a recipe takes it."""

from __future__ import annotations

import pytest

from mulligan.cli import main
from mulligan.config import dump_recipe, load_recipe, parse_recipe
from mulligan.settings import list_settings

LEAST = {"model": {"path": "tiny:"}, "problems": {"train": "builtin:guess"}}


def keys_of(table, where=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{where}{key}.")
        else:
            yield where + key


def test_it_has_every_key_of_a_recipe():
    assert {one.key for one in list_settings()} == set(keys_of(dump_recipe(parse_recipe(LEAST))))
    assert {one.key for one in list_settings() if one.default is None} == {"model.path", "problems.train"}


def test_defaults_can_be_given_as_they_are_written(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('[model]\npath = "tiny:"\n[problems]\ntrain = "builtin:guess"\n')
    given = [f"{one.key}={one.default}" for one in list_settings() if one.default is not None]
    assert len(given) > 80
    assert load_recipe(path, given) == parse_recipe(LEAST)


def test_most_settings_say_what_they_mean():
    silent = [one.key for one in list_settings() if not one.meaning and not one.key.startswith("model.tiny.")]
    assert {key.rpartition(".")[2] for key in silent} == {"betas", "eps", "weight_decay"}


def test_a_section_or_a_setting(capsys: pytest.CaptureFixture[str]):
    assert [one.key for one in list_settings("critic")] == ["critic.kind", "critic.lr", "critic.warmup_steps"]
    (kind,) = list_settings("critic.kind")
    assert (kind.default, kind.values) == ("separate", ("head", "separate"))
    assert list_settings("crit") == []
    assert main(["settings", "loss"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "loss.clip_high 0.2 and up to 1 + clip_high" in shown
    assert "k1 | k2 | k3" in shown
    assert main(["settings"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for one in list_settings():
        if one.values != ("true", "false"):
            assert all(value in shown for value in one.values), one.key
    assert main(["settings", "bogus"]) == 2
    assert "no setting begins with 'bogus': use name, seed, attempts, model" in capsys.readouterr().err
