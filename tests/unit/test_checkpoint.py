"""Checkpoints come back bit for bit, and a killed or damaged one never takes the run with it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mulligan import checkpoint
from mulligan.errors import RunError


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure and every bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(type(x) is type(y) for x, y in zip(a, b, strict=True)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return a == b


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


# ------------------------------------------------------------------------------------------------------------- round trip

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype is torch.bool:
        data = bytes(byte & 1 for byte in data)
    flat = torch.frombuffer(bytearray(data), dtype=dtype) if size else torch.empty(0, dtype=dtype)
    tensor = flat.reshape(shape)
    return tensor.transpose(0, -1) if tensor.dim() > 1 and draw(st.booleans()) else tensor


NUMPY = [np.float32, np.float64, np.int64, np.uint32, np.uint8, np.bool_]
arrays = st.sampled_from(NUMPY).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.binary(max_size=5),
    st.sampled_from(["$tensor", "$dict", ""]),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.booleans().map(np.bool_),
)
keys = st.one_of(st.text(max_size=4), st.integers(), st.sampled_from(["$tensor", "$tuple", "$x"]), st.tuples(st.text(max_size=2), st.integers(0, 9)), st.none())
states = st.dictionaries(
    keys,
    st.recursive(
        st.one_of(scalars, tensors(), arrays),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(keys, inner, max_size=3)),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(state=states)
def test_any_state_comes_back_bit_for_bit(state: dict[Any, Any], tmp_path: Path) -> None:
    assert same(state, checkpoint.load(checkpoint.save(tmp_path, 7, state, keep=1)))


@pytest.mark.parametrize(
    "value",
    [float("nan"), -float("inf"), -0.0, 5e-324, 10**40, True, 1, 1.0, (), {}, [], {"$tensor": "x"}, {0: {1: 2}}, {"\ud800": torch.ones(1)}, np.float32("nan")],
    ids=repr,
)
def test_what_json_would_lose_survives(value: Any, tmp_path: Path) -> None:
    assert same({"v": value}, checkpoint.load(checkpoint.save(tmp_path, 1, {"v": value}, keep=1)))


def test_optimizer_and_generators_go_on_exactly_where_they_were(tmp_path: Path) -> None:
    def build() -> tuple[torch.nn.Linear, torch.optim.Optimizer, torch.Generator]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        groups = [{"params": [model.weight], "lr": 1e-2, "betas": (0.9, 0.95)}, {"params": [model.bias]}]
        return model, torch.optim.AdamW(groups, lr=1e-3), torch.Generator().manual_seed(5)

    def run(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3, generator=generator)).square().sum().backward()
            optimizer.step()

    model, optimizer, generator = build()
    run(model, optimizer, generator)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": generator.get_state(), "rng": np.random.RandomState(3).get_state()}
    path = checkpoint.save(tmp_path, 3, state, keep=1)
    run(model, optimizer, generator)

    other, other_optimizer, other_generator = build()
    loaded = checkpoint.load(path)
    assert set(loaded["optimizer"]["state"]) == {0, 1}
    assert loaded["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.95)
    other.load_state_dict(loaded["model"])
    other_optimizer.load_state_dict(loaded["optimizer"])
    other_generator.set_state(loaded["generator"])
    np.random.RandomState().set_state(loaded["rng"])
    run(other, other_optimizer, other_generator)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_tied_tensors_and_views_come_back_with_memory_of_their_own(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    state = OrderedDict(a=whole, tied=whole, half=whole[3:], turned=whole.view(2, 3).T, parameter=torch.nn.Parameter(whole))
    loaded = checkpoint.load(checkpoint.save(tmp_path, 1, state, keep=1))
    loaded["a"].zero_()
    assert loaded["tied"].tolist() == [0, 1, 2, 3, 4, 5]
    assert loaded["half"].tolist() == [3, 4, 5]
    assert loaded["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert loaded["parameter"].requires_grad is False


def test_what_cannot_be_stored_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.a\[1\]\.b: builtins\.set cannot be stored"):
        checkpoint.save(tmp_path, 1, {"a": [0, {"b": {1, 2}}]}, keep=1)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- kills and damage


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "w": torch.full((100,), float(step))}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("step", "moment"), [(1, moment) for moment in range(7)] + [(2, moment) for moment in range(6)])
def test_an_exception_at_any_moment_leaves_a_whole_checkpoint(step: int, moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moments: after each of the three files, the folder, before and after the renames."""
    checkpoint.save(tmp_path, 1, state_of(1), keep=1)
    calls = 0

    def strike(real: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == moment + 1:
                raise KeyboardInterrupt
            return real(*args)

        return wrapped

    monkeypatch.setattr(checkpoint, "_sync", strike(checkpoint._sync))
    monkeypatch.setattr(os, "replace", strike(os.replace))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, step, state_of(step) | {"new": True}, keep=1)
    monkeypatch.undo()
    path = checkpoint.latest(tmp_path)
    assert path is not None
    loaded = checkpoint.load(path)
    assert same(loaded, state_of(1)) or same(loaded, state_of(step) | {"new": True})
    checkpoint.save(tmp_path, 3, state_of(3), keep=1)
    assert names(tmp_path) == ["step_000003"]


def test_a_full_disk_is_a_clear_error_and_the_old_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, state_of(1), keep=1)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sync", full)
    with pytest.raises(RunError, match=r"step_000002: the checkpoint cannot be written .*No space left"):
        checkpoint.save(tmp_path, 2, state_of(2), keep=1)
    assert names(tmp_path) == ["step_000001"]


def test_a_writer_killed_in_the_middle(tmp_path: Path) -> None:
    """A real SIGKILL after the tensors were written: the folder that it leaves is not taken for a checkpoint, and goes at the next save."""
    checkpoint.save(tmp_path, 1, state_of(1), keep=2)
    script = (
        "import os, signal, sys, torch\n"
        "from mulligan import checkpoint\n"
        "checkpoint._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.save(sys.argv[1], 2, {'w': torch.ones(1000)}, keep=2)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".tmp-step_000002", "step_000001"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000001"
    checkpoint.save(tmp_path, 2, state_of(2), keep=2)
    assert names(tmp_path) == ["step_000001", "step_000002"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Any] = {
    "tensors.safetensors differs": lambda path: flip(path / "tensors.safetensors"),
    "state.json differs": lambda path: flip(path / "state.json"),
    "manifest.json is unreadable": lambda path: (path / "manifest.json").write_text("{"),
    "manifest.json does not belong": lambda path: (path / "manifest.json").write_text(json.dumps({"format": 1, "step": 9, "files": {}})),
    "has format 99": lambda path: (path / "manifest.json").write_text(json.dumps({"format": 99})),
    "state.json is missing": lambda path: (path / "state.json").unlink(),
    "manifest.json is missing": lambda path: (path / "manifest.json").unlink(),
    r"tensors.safetensors differs from": lambda path: os.truncate(path / "tensors.safetensors", 10),
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(fault: str, tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state_of(step), keep=2)
    DAMAGES[fault](tmp_path / "step_000002")
    with pytest.warns(RuntimeWarning, match=f"step_000002.*{fault}.*going back to step_000001"):
        path = checkpoint.latest(tmp_path)
    assert path == tmp_path / "step_000001"
    assert same(checkpoint.load(path), state_of(1))
    with pytest.raises(RunError, match=fault):
        checkpoint.load(tmp_path / "step_000002")


def test_no_whole_checkpoint_is_an_error_and_none_at_all_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None
    assert checkpoint.latest(tmp_path) is None
    path = checkpoint.save(tmp_path, 1, state_of(1), keep=1)
    (path / "state.json").unlink()
    with pytest.raises(RunError, match=r"no checkpoint is whole.*state\.json is missing"):
        checkpoint.latest(tmp_path)
    with pytest.raises(RunError, match="the folder is missing"):
        checkpoint.load(tmp_path / "step_000009")


# --------------------------------------------------------------------------------------------------------------- pruning


def test_only_the_newest_are_kept_in_order_of_steps(tmp_path: Path) -> None:
    for step in (8, 9, 10, 100):
        checkpoint.save(tmp_path, step, state_of(step), keep=2)
    assert names(tmp_path) == ["step_000010", "step_000100"]


def test_a_damaged_checkpoint_never_displaces_a_whole_one(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state_of(step), keep=3)
    (tmp_path / "step_000002" / "manifest.json").unlink()
    checkpoint.save(tmp_path, 3, state_of(3), keep=2)
    assert names(tmp_path) == ["step_000001", "step_000003"]


def test_going_back_drops_the_future(tmp_path: Path) -> None:
    """A run that resumed at step 1, because step 5 was damaged, must not meet step 5 again."""
    for step in (1, 5):
        checkpoint.save(tmp_path, step, state_of(step), keep=3)
    flip(tmp_path / "step_000005" / "tensors.safetensors")
    checkpoint.save(tmp_path, 3, state_of(3), keep=1)
    assert names(tmp_path) == ["step_000003"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000003"


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"v": "old"}, keep=2)
    path = checkpoint.save(tmp_path, 1, {"v": "new"}, keep=2)
    assert checkpoint.load(path) == {"v": "new"}
    assert names(tmp_path) == ["step_000001"]
    assert checkpoint.step_of(path) == 1


def test_keep_must_leave_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep = 0"):
        checkpoint.save(tmp_path, 1, {}, keep=0)
