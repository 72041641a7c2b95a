"""How the process holds its memory on the processor."""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of malloc.h."""


def keep_freed_memory() -> None:
    """Have the C library keep what tensors give back, and torch ask for large pages; call it before the first large tensor is made.

    A pass allocates and frees the same large blocks hundreds of times. Returned to the system, each costs a page fault per 4 KB the
    next time: together about a tenth of a step. The process stays as large as its largest moment. Done for glibc; elsewhere the
    allocator stays as it is. A value that the user has set for torch's own switch stands.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
