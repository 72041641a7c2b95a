"""Checkpoints: atomic, verified, without pickle.

A checkpoint is a folder `step_000120` with three files::

    tensors.safetensors   every tensor and array of the state, bit for bit
    state.json            the rest of the state, with references into the tensors
    manifest.json         step, format, and size and SHA-256 of the two others

It is written beside its final place under another name, flushed to the disk file by file, and renamed: under its final name it
is either whole or damaged by something else than us. Whoever reads it checks the sums first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shutil
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mulligan.errors import RunError

if TYPE_CHECKING:
    import torch

FORMAT = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"(?P<old>\.old-)?step_(?P<step>\d+)")


# ----------------------------------------------------------------------------------------------------------------- public


def save(folder: str | Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write `state` as the checkpoint of `step` and delete all but the `keep` newest.

    `state` nests dicts (with any hashable keys: the integers of an optimizer's state survive), lists and tuples around tensors,
    numpy arrays and scalars, numbers, strings, bytes and None. Checkpoints of later steps than `step` belong to a future that a
    resumed run has left; they are deleted too.

    Raises:
        TypeError: `state` holds something that cannot be stored; names where.
        RunError: the disk refuses.
    """
    if keep < 1:
        raise ValueError(f"keep = {keep}: at least the checkpoint just written has to stay")
    folder = Path(folder)
    final = folder / f"step_{step:06d}"
    tree, tensors = _encode_state(state)
    fresh = folder / f".tmp-{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        _write(fresh, step, tree, tensors)
        _swap(fresh, final)
        _prune(folder, final, keep)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{final}: the checkpoint cannot be written ({error}): free space or choose another --out") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return final


def latest(folder: str | Path) -> Path | None:
    """The newest whole checkpoint of `folder`; None if there is none at all.

    A damaged or partial one is skipped with a warning.

    Raises:
        RunError: there are checkpoints, but none is whole.
    """
    faults = []
    for path in _candidates(Path(folder)):
        fault = _fault(path)
        if fault is None:
            for line in faults:
                warnings.warn(f"{line}; going back to {path.name}", RuntimeWarning, stacklevel=2)
            return path
        faults.append(fault)
    if faults:
        raise RunError(f"no checkpoint is whole: {'; '.join(faults)}: start again with another --out")
    return None


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint back, equal to what was saved (tensors on the CPU, without gradient, each with memory of its own).

    Raises:
        RunError: the checkpoint is missing, damaged or of another format; names the file.
    """
    path = Path(path)
    fault = _fault(path)
    if fault is not None:
        raise RunError(f"{fault}: resume from another checkpoint")
    from safetensors.torch import load_file

    tensors = load_file(path / TENSORS)
    return _decode(json.loads((path / STATE).read_text(encoding="ascii")), tensors)


def step_of(path: str | Path) -> int:
    """The step of a checkpoint folder, from its name."""
    match = _NAME.fullmatch(Path(path).name)
    if not match:
        raise RunError(f"{path} is not a checkpoint: name a folder like step_000120")
    return int(match["step"])


# -------------------------------------------------------------------------------------------------------------- the files


def _write(fresh: Path, step: int, tree: Any, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    fresh.mkdir()
    save_file(tensors, fresh / TENSORS)
    _sync(fresh / TENSORS)
    (fresh / STATE).write_text(json.dumps(tree, allow_nan=False), encoding="ascii")
    _sync(fresh / STATE)
    files = {name: {"bytes": (fresh / name).stat().st_size, "sha256": _sha256(fresh / name)} for name in (TENSORS, STATE)}
    (fresh / MANIFEST).write_text(json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1), encoding="ascii")
    _sync(fresh / MANIFEST)
    _sync(fresh)


def _swap(fresh: Path, final: Path) -> None:
    """Rename into place. A checkpoint of the same step steps aside first, under a name that `latest` still reads."""
    aside = final.with_name(f".old-{final.name}")
    if aside.exists():  # a writer was killed just here: the twin stays until the new one stands
        shutil.rmtree(final, ignore_errors=True)
    elif final.exists():
        os.replace(final, aside)
    os.replace(fresh, final)
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _prune(folder: Path, newest: Path, keep: int) -> None:
    """Delete what is beyond `keep`. Only readable ones count, so that a damaged checkpoint never displaces a whole one."""
    kept = 0
    for path in _candidates(folder):
        stays = kept < keep and step_of(path) <= step_of(newest) and (path == newest or _fault(path, sums=False) is None)
        kept += stays
        if not stays:
            shutil.rmtree(path, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer left behind, and the old twin of a checkpoint that was replaced."""
    for path in folder.glob(".tmp-step_*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".old-step_*"):
        if _fault(folder / path.name.removeprefix(".old-")) is None:
            shutil.rmtree(path, ignore_errors=True)


def _candidates(folder: Path) -> list[Path]:
    """Every checkpoint by name, newest first, one in its place before the old twin that it replaced."""
    if not folder.is_dir():
        return []
    found = [(int(match["step"]), not match["old"], path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)) and path.is_dir()]
    return [path for _, _, path in sorted(found, reverse=True)]


def _fault(path: Path, *, sums: bool = True) -> str | None:
    """What is wrong with the checkpoint, in one clause; None if it is whole. Without `sums`, sizes only."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="ascii"))
        if manifest["format"] != FORMAT:
            return f"checkpoint {path} has format {manifest['format']}, this version reads {FORMAT}"
        if manifest["step"] != step_of(path) or set(manifest["files"]) != {TENSORS, STATE}:
            return f"checkpoint {path} is damaged ({MANIFEST} does not belong to it)"
        for name, entry in manifest["files"].items():
            if (path / name).stat().st_size != entry["bytes"] or (sums and _sha256(path / name) != entry["sha256"]):
                return f"checkpoint {path} is damaged ({name} differs from its checksum)"
    except FileNotFoundError as error:
        missing = Path(error.filename).name if path.is_dir() else "the folder"
        return f"checkpoint {path} is incomplete ({missing} is missing)"
    except OSError as error:
        return f"checkpoint {path} cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"checkpoint {path} is damaged ({MANIFEST} is unreadable)"
    return None


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --------------------------------------------------------------------------------------------------------- state <-> JSON
#
# Plain JSON where it is exact; else an object with one key that starts with "$":
#   {"$tensor": name}  {"$array": name}  {"$numpy": [dtype, base64]}  {"$float": hex}  {"$bytes": base64}
#   {"$tuple": [...]}  {"$dict": [[key, value], ...]}    (the last for keys that are no plain strings)


def _encode_state(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """The JSON tree of `state` and the tensors that it refers to."""
    tensors: dict[str, torch.Tensor] = {}
    storages: set[int] = set()

    def put(value: torch.Tensor, where: str) -> str:
        tensor = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        # A tensor file holds whole, unshared memory: views and tied tensors are copied.
        if pointer in storages or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        name = f"{len(tensors)}:{where.encode('ascii', 'backslashreplace').decode('ascii')}"
        tensors[name] = tensor
        return name

    return _encode(state, "state", put), tensors


def _encode(value: Any, where: str, put: Callable[[torch.Tensor, str], str]) -> Any:
    import numpy as np
    import torch

    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.dtype is torch.complex128:
            raise TypeError(f"{where}: a {value.layout} tensor of {value.dtype} cannot be stored in a checkpoint")
        return {"$tensor": put(value, where)}
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return {"$numpy": [value.dtype.str, base64.b64encode(value.tobytes()).decode("ascii")]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.isnative and value.dtype.itemsize <= 8:
        return {"$array": put(torch.from_numpy(np.array(value, order="C")), where)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, list):
        return [_encode(item, f"{where}[{i}]", put) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [_encode(item, f"{where}[{i}]", put) for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _encode(item, f"{where}.{key}", put) for key, item in value.items()}
        return {"$dict": [[_encode(key, f"{where} key", put), _encode(item, f"{where}.{key}", put)] for key, item in value.items()]}
    raise TypeError(f"{where}: {type(value).__module__}.{type(value).__qualname__} cannot be stored in a checkpoint")


def _decode(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    import numpy as np

    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    kind = next(iter(node)) if len(node) == 1 else ""
    match kind:
        case "$tensor":
            return tensors[node[kind]]
        case "$array":
            return tensors[node[kind]].numpy()
        case "$numpy":
            dtype, data = node[kind]
            return np.frombuffer(base64.b64decode(data), dtype=np.dtype(dtype))[0]
        case "$float":
            return struct.unpack(">d", bytes.fromhex(node[kind]))[0]
        case "$bytes":
            return base64.b64decode(node[kind])
        case "$tuple":
            return tuple(_decode(item, tensors) for item in node[kind])
        case "$dict":
            return {_decode(key, tensors): _decode(item, tensors) for key, item in node[kind]}
    return {key: _decode(item, tensors) for key, item in node.items()}
