"""Compiled versions of what lies between matrix products on the processor (`kernels.cpp`); `ops.py` has them beside plain torch.

`compiled()` translates the source with the machine's C++ compiler once, into the user's cache folder, and loads it; where that fails
(no compiler, no OpenMP, a cache folder that cannot be written) it says so once in the log and returns None, and torch computes instead.
Set CXX to choose the compiler, or to `false` to do without.

Legend: T tokens of a pass, N of them to be attended, H query heads, K key/value heads, D and E sizes of keys and values, S cache rows,
B sequences of a pass, P places of all of them together.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_suffix(".cpp")
# Neither fast-math nor reassociation: sums keep the order that the source gives them, and loading the library must not change the
# processor's treatment of denormal numbers for all of the process.
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_PATIENCE = 120.0
"""Seconds that the compiler may take (it takes one or two)."""

_POINTER, _COUNT, _FLOAT, _THREADS = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_SIGNATURES: dict[str, list[type]] = {
    "rms_norm": [_POINTER] * 3 + [_COUNT] * 2 + [_FLOAT, _THREADS],
    "rms_norm_backward": [_POINTER] * 6 + [_COUNT] * 2 + [_FLOAT, _THREADS],
    "swiglu": [_POINTER] * 3 + [_COUNT, _THREADS],
    "swiglu_backward": [_POINTER] * 5 + [_COUNT, _THREADS],
    "softmax_sums": [_POINTER] * 3 + [_COUNT] * 2 + [_FLOAT, _THREADS],
    "softmax_sums_backward": [_POINTER] * 6 + [_COUNT] * 2 + [_FLOAT, _THREADS],
    "softmax_blocks": [_POINTER] * 3 + [_COUNT] * 2 + [_FLOAT, _THREADS],
    "quantize": [_POINTER] * 3 + [_COUNT] * 3 + [_THREADS],
    "rotate": [_POINTER] * 3 + [_COUNT] * 3 + [_THREADS],
    "rotate_backward": [_POINTER] * 3 + [_COUNT] * 3 + [_THREADS],
    "attend_packed": [_POINTER] * 8 + [_COUNT] * 5 + [_FLOAT, _THREADS],
    "attend_packed_backward": [_POINTER] * 13 + [_COUNT] * 6 + [_FLOAT, _THREADS],
    "attend": [_POINTER] * 9 + [_COUNT] * 7 + [_FLOAT, _COUNT, _FLOAT, _THREADS],
}


_ROWS, _LANES = 64, 16
"""As in `kernels.cpp`."""

SUMMED = 256
"""Neighbouring weights of a softmax that are added up in single precision; as in `kernels.cpp`."""


class Places(NamedTuple):
    """Where the tokens of B sequences stand in a pass that has what they have in common at their beginning once. All int64 on the processor."""

    path_P: Tensor
    """The places of the first sequence's tokens, then the second's, and so on."""
    starts_B1: Tensor
    """Where each sequence begins in `path_P`, and its end, (B + 1,)."""
    own_B: Tensor
    """How many of its first tokens each shares with sequences before it."""


class Kernels:
    """The compiled functions. Tensors are float32 on the processor; results carry no gradient."""

    def __init__(self, library: ctypes.CDLL):
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
        self._library = library

    def rms_norm(self, x: Tensor, weight_N: Tensor, eps: float) -> Tensor:
        """x (..., N) over the root of its mean square, times weight_N."""
        assert x.dtype == weight_N.dtype == torch.float32
        x, width = x.contiguous(), x.shape[-1]
        out = torch.empty_like(x)
        self._library.rms_norm(x.data_ptr(), weight_N.data_ptr(), out.data_ptr(), x.numel() // width, width, eps, torch.get_num_threads())
        return out

    def rms_norm_backward(self, grad: Tensor, x: Tensor, weight_N: Tensor, eps: float, beside: Tensor | None, *, weight: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of `rms_norm` towards x, with `beside` added to it, and towards the weight, if that is wanted."""
        grad, x, width = grad.contiguous(), x.contiguous(), x.shape[-1]
        rows = x.numel() // width
        to_x, to_weight = torch.empty_like(x), x.new_empty(-(-rows // _ROWS), width) if weight else None
        beside = None if beside is None else beside.contiguous()
        optional = (None if t is None else t.data_ptr() for t in (beside, to_weight))
        pointers = grad.data_ptr(), x.data_ptr(), weight_N.data_ptr(), next(optional), to_x.data_ptr(), next(optional)
        self._library.rms_norm_backward(*pointers, rows, width, eps, torch.get_num_threads())
        return to_x, None if to_weight is None else to_weight.sum(0)

    def swiglu(self, gate: Tensor, up: Tensor, *, in_place: bool = False) -> Tensor:
        """silu(gate) * up, written over a contiguous gate if `in_place`."""
        assert gate.dtype == up.dtype == torch.float32
        gate, up = gate.contiguous(), up.contiguous()
        out = gate if in_place else torch.empty_like(gate)
        self._library.swiglu(gate.data_ptr(), up.data_ptr(), out.data_ptr(), gate.numel(), torch.get_num_threads())
        return out

    def swiglu_backward(self, grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of `swiglu` towards gate and up."""
        grad, gate, up = grad.contiguous(), gate.contiguous(), up.contiguous()
        to_gate, to_up = torch.empty_like(gate), torch.empty_like(up)
        pointers = (t.data_ptr() for t in (grad, gate, up, to_gate, to_up))
        self._library.swiglu_backward(*pointers, gate.numel(), torch.get_num_threads())
        return to_gate, to_up

    def softmax_sums(self, logits_CV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Of the softmax at `temperature`: the logarithm of the sum of the exponentials, and the entropy in nats, (C,) each."""
        assert logits_CV.dtype == torch.float32 and logits_CV.is_contiguous()
        lse_C, entropy_C = logits_CV.new_empty(len(logits_CV)), logits_CV.new_empty(len(logits_CV))
        pointers = (x.data_ptr() for x in (logits_CV, lse_C, entropy_C))
        self._library.softmax_sums(*pointers, *logits_CV.shape, 1 / temperature, torch.get_num_threads())
        return lse_C, entropy_C

    def softmax_sums_backward(self, logits_CV: Tensor, lse_C: Tensor, entropy_C: Tensor, lse_pull_C: Tensor, entropy_pull_C: Tensor, temperature: float) -> Tensor:
        """Gradient of `softmax_sums`, whose results `lse_C` and `entropy_C` are, towards the logits: (C, V)."""
        to_logits_CV = torch.empty_like(logits_CV)
        given = (logits_CV, lse_C, entropy_C, lse_pull_C.contiguous(), entropy_pull_C.contiguous(), to_logits_CV)
        pointers = (x.data_ptr() for x in given)
        self._library.softmax_sums_backward(*pointers, *logits_CV.shape, 1 / temperature, torch.get_num_threads())
        return to_logits_CV

    def softmax_blocks(self, logits_RV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The highest logit of each row, (R, 1), and the weights of the softmax at `temperature` beside it, summed by `SUMMED` neighbours: (R, B), float64."""
        assert logits_RV.dtype == torch.float32
        logits_RV = logits_RV.contiguous()
        highest_R1 = logits_RV.new_empty(len(logits_RV), 1)
        sums_RB = logits_RV.new_empty(len(logits_RV), -(-logits_RV.shape[1] // SUMMED), dtype=torch.float64)
        pointers = (x.data_ptr() for x in (logits_RV, highest_R1, sums_RB))
        self._library.softmax_blocks(*pointers, *logits_RV.shape, 1 / temperature, torch.get_num_threads())
        return highest_R1, sums_RB

    def quantize(self, x: Tensor, group: int) -> tuple[Tensor, Tensor]:
        """x (..., N), mixed in groups (`ops.mix`), in 8 bits: bytes (..., N) around 128, and a scale for each row of N, (..., 1)."""
        assert x.dtype == torch.float32
        x, width = x.contiguous(), x.shape[-1]
        out, scale = torch.empty_like(x, dtype=torch.uint8), x.new_empty(*x.shape[:-1], 1)
        self._library.quantize(x.data_ptr(), out.data_ptr(), scale.data_ptr(), x.numel() // width, width, group, torch.get_num_threads())
        return out, scale

    def rotate(self, x_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        """Rotary embedding of x_THD, in place if it is contiguous."""
        assert x_THD.dtype == cos_TD.dtype == sin_TD.dtype == torch.float32
        x, cos, sin, (count, heads, size) = x_THD.contiguous(), cos_TD.contiguous(), sin_TD.contiguous(), x_THD.shape
        self._library.rotate(x.data_ptr(), cos.data_ptr(), sin.data_ptr(), count, heads, size, torch.get_num_threads())
        return x

    def rotate_backward(self, grad_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        """The gradient of `rotate`: a new tensor."""
        grad, cos, sin, (count, heads, size) = grad_THD.clone(memory_format=torch.contiguous_format), cos_TD.contiguous(), sin_TD.contiguous(), grad_THD.shape
        self._library.rotate_backward(grad.data_ptr(), cos.data_ptr(), sin.data_ptr(), count, heads, size, torch.get_num_threads())
        return grad

    def attend_packed(self, query_THD: Tensor, key_TKD: Tensor, value_TKE: Tensor, places: Places, scale: float) -> tuple[Tensor, Tensor]:
        """Every token of a pass attends to its own past: (T, H, E), and the logarithm of what its weights were divided by, (T, H)."""
        assert query_THD.dtype == key_TKD.dtype == value_TKE.dtype == torch.float32
        query, key, value = query_THD.contiguous(), key_TKD.contiguous(), value_TKE.contiguous()
        (count, heads, size), (_, kv_heads, value_size) = query.shape, value.shape
        out, lse = query.new_empty(count, heads, value_size), query.new_empty(count, heads)
        pointers = (x.data_ptr() for x in (query, key, value, out, lse, *places))
        self._library.attend_packed(*pointers, len(places.own_B), heads, kv_heads, size, value_size, scale, torch.get_num_threads())
        return out, lse

    def attend_packed_backward(
        self, grad_THE: Tensor, query_THD: Tensor, key_TKD: Tensor, value_TKE: Tensor, out_THE: Tensor, lse_TH: Tensor, places: Places, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of `attend_packed` towards queries, keys and values; `out_THE` and `lse_TH` are what it gave."""
        given = [x.contiguous() for x in (grad_THE, query_THD, key_TKD, value_TKE, out_THE, lse_TH)]
        to_query, to_key, to_value = (torch.empty_like(x) for x in given[1:4])
        (count, heads, size), (_, kv_heads, value_size) = query_THD.shape, value_TKE.shape
        parts = query_THD.new_empty(kv_heads * len(places.path_P) * sum(-(-n // _LANES) * _LANES for n in (size, value_size)))
        pointers = (x.data_ptr() for x in (*given, to_query, to_key, to_value, parts, *places))
        shape = (count, len(places.own_B), heads, kv_heads, size, value_size)
        self._library.attend_packed_backward(*pointers, *shape, scale, torch.get_num_threads())
        return to_query, to_key, to_value

    def attend(
        self,
        query_THD: Tensor,
        key_TKD: Tensor,
        value_TKE: Tensor,
        cache: tuple[Tensor, Tensor],
        places: tuple[Tensor, Tensor],
        which_N: Tensor,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Write the new keys and values of all T tokens to the cache; tokens `which_N` attend to their row up to themselves.

        Args:
            cache: keys (S, K, capacity, D) and values (S, K, capacity, E); changed.
            places: each token's cache row and position in it, (T,) and (T,), int64.
            window: at most so many tokens back, each token itself included.

        Returns:
            (T, H, E); rows of other tokens than `which_N` are left as memory had them.
        """
        assert all(x.dtype == torch.float32 and x.is_contiguous() for x in cache) and query_THD.dtype == key_TKD.dtype == value_TKE.dtype == torch.float32
        query, key, value = query_THD.contiguous(), key_TKD.contiguous(), value_TKE.contiguous()
        (count, heads, size), (_, kv_heads, value_size) = query.shape, value.shape
        out = query.new_empty(count, heads, value_size)
        pointers = (x.data_ptr() for x in (query, key, value, *cache, out, *places, which_N))
        shape = (count, len(which_N), heads, kv_heads, size, value_size, cache[0].shape[2])
        self._library.attend(*pointers, *shape, scale, window or 0, softcap or 0.0, torch.get_num_threads())
        return out


@functools.cache
def compiled() -> Kernels | None:
    """The compiled functions, or None where they cannot be had; the reason stands in the log."""
    try:
        return Kernels(ctypes.CDLL(str(_library())))
    except (OSError, AttributeError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home folder
        said = getattr(error, "stderr", None) or str(error)
        reason = (said.strip().splitlines() or [type(error).__name__])[0][:200]
        logger.warning("no compiled kernels: sampling and training are slower by a tenth or more (%s)", reason)
        return None


def _library() -> Path:
    """Path of the compiled library; compiles it if this source, compiler and processor have not met before."""
    compiler = _compiler()
    version = _run([*compiler, "--version"])
    made_of = "\0".join((SOURCE.read_text(), *FLAGS, *compiler, version, _processor()))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mulligan"
    target = folder / f"kernels-{hashlib.sha256(made_of.encode()).hexdigest()[:20]}.so"
    if not target.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
        try:
            _run([*compiler, *FLAGS, str(SOURCE), "-o", name])
            os.replace(name, target)  # at once: processes that start together never see half a file
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    return target


def _compiler() -> list[str]:
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        return chosen
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise FileNotFoundError("no C++ compiler found")


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL).stdout


def _processor() -> str:
    """What -march=native stands for: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))))
