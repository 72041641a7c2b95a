"""A process without network, without other processes and without the file system, made by bubblewrap (`bwrap`).

Namespaces of its own for users, processes, network, IPC and host name; no capabilities; of the file system, read-only, the system's
libraries and Python's standard library; a folder in memory (`/tmp`) that ends with it. A filter of system calls kills it when it
starts a process, opens a socket, or reaches for what no answer needs. There is no fallback: without these there is no sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from mulligan.errors import ConfigError

FOLDER_BYTES = 16 << 20
"""Size of the sandbox's own folder."""
_NEEDED = ("--unshare-user", "--die-with-parent", "--seccomp", "--remount-ro", "--info-fd")

# Numbers of system calls: (x86_64, aarch64); None: the machine has none of that name.
_DEADLY = {
    "fork": (57, None), "vfork": (58, None), "socket": (41, 198), "ptrace": (101, 117), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "bpf": (321, 280), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438), "open_by_handle_at": (304, 265), "reboot": (169, 142),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
}  # fmt: skip
# Memory that no limit counts, and doors of the kernel that libraries may try.
_REFUSED = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "kcmp": (312, 272),
    "personality": (135, 92), "syslog": (103, 116), "acct": (163, 89), "swapon": (167, 224), "quotactl": (179, 60), "vmsplice": (278, 75),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_KILL, _ALLOW, _EPERM, _ENOSYS = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026


def seccomp_filter(machine: str) -> bytes:
    """The filter of system calls as the kernel reads it (classic BPF). Raises KeyError for a machine whose calls are not listed."""
    column, arch = _MACHINES[machine]
    load, equal, at_least, bits, back = 0x20, 0x15, 0x35, 0x45, 0x06

    def step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", code, then, otherwise, value)

    program = [step(load, 4), step(equal, arch, 1, 0), step(back, _KILL), step(load, 0)]
    if machine == "x86_64":
        program += [step(at_least, 0x40000000, 0, 1), step(back, _KILL)]  # the x32 calls
    for table, what in ((_DEADLY, _KILL), (_REFUSED, _EPERM), ({"clone3": _CLONE3}, _ENOSYS)):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                program += [step(equal, number, 0, 1), step(back, what)]
    clone_thread = 0x10000  # clone3 has its flags in memory, where no filter can look; the C library falls back to clone
    program += [step(equal, _CLONE[column], 0, 3), step(load, 16), step(bits, clone_thread, 1, 0), step(back, _KILL), step(back, _ALLOW)]
    return b"".join(program)


class Sandboxed:
    """One process in a sandbox: the script `script` with `arguments`, its standard input the socket `stdin`. Raises OSError."""

    def __init__(self, script: str, arguments: list[str], stdin: socket.socket, pass_fds: tuple[int, ...] = ()):
        self.errors = b""
        filter_out, filter_in = os.pipe()
        info_out, info_in = os.pipe()
        try:
            os.write(filter_in, seccomp_filter(platform.machine()))
            os.close(filter_in)
            self.process = subprocess.Popen(
                [*_command(_find()), "--seccomp", str(filter_out), "--info-fd", str(info_in), "--", *_python(), "-c", script, *arguments],
                stdin=stdin.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=(*pass_fds, filter_out, info_in), env={}, cwd="/",
            )  # fmt: skip
            os.close(info_in)
            info_in = -1
            self._first = _first_process(info_out)
        finally:
            for fd in (filter_out, info_out, info_in):
                if fd >= 0:
                    os.close(fd)

    def status(self, patience: float = 0.0) -> int | None:
        """Exit status; 128 and more for a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(patience)
        return None

    def end(self, patience: float = 5.0) -> bool:
        """Kill it and wait until every process in it is gone; whether they are. What bubblewrap had to say is in `errors`.

        Its first process is killed and waited for: the kernel lets that one end after all others alone. bubblewrap itself may end before.
        """
        gone = self._first is None
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            gone = bool(select.select([self._first], [], [], patience)[0])
            os.close(self._first)
            self._first = None
        self.process.kill()
        self.process.wait()
        stderr = self.process.stderr
        assert stderr is not None
        if select.select([stderr], [], [], 0.0)[0]:
            self.errors = os.read(stderr.fileno(), 2000)
        stderr.close()
        return gone


def _first_process(info: int, patience: float = 10.0) -> int | None:
    """A file descriptor of the first process inside, from what bubblewrap says of it; None if there is none (any more)."""
    said = b""
    while b"}" not in said and select.select([info], [], [], patience)[0] and (part := os.read(info, 1000)):
        said += part
    found = re.search(rb'"child-pid":\s*(\d+)', said)
    try:
        return os.pidfd_open(int(found[1])) if found else None
    except ProcessLookupError:
        return None


@functools.cache
def _find() -> tuple[str, frozenset[str]]:
    """bubblewrap's path, and the options that it knows. Raises ConfigError, which says what is missing."""
    off = "or leave grader.code off"
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise ConfigError(f"grader.code: code is run in a sandbox on Linux with x86_64 or aarch64 only: use such a machine, {off}")
    path = shutil.which("bwrap")
    if path is None:
        raise ConfigError(f"grader.code: code is run in bubblewrap only, which is not installed: install it (apt-get install bubblewrap), {off}")
    text = subprocess.run([path, "--help"], capture_output=True, text=True, check=False).stdout
    options = frozenset(word for word in text.split() if word.startswith("--"))
    if missing := [option for option in _NEEDED if option not in options]:
        raise ConfigError(f"grader.code: {path} is too old and lacks {', '.join(missing)}: install a newer bubblewrap, {off}")
    return path, options


def _command(found: tuple[str, frozenset[str]]) -> list[str]:
    path, options = found
    command = [path, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    command += ["--disable-userns"] if "--disable-userns" in options else []
    command += ["--clearenv"] if "--clearenv" in options else []  # its environment is empty anyway
    command += ["--setenv", "PYTHONHASHSEED", "0", "--setenv", "LC_ALL", "C.UTF-8", "--setenv", "HOME", "/tmp"]
    command += _mounts()
    for device in ("null", "zero", "urandom", "random"):
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    if "--size" in options:
        command += ["--size", str(FOLDER_BYTES), "--tmpfs", "/tmp"]
    else:
        command += ["--dir", "/tmp"]  # without a limit on its size it would be memory without a limit: read-only, then
    return [*command, "--remount-ro", "/", "--chdir", "/tmp"]


def _mounts() -> list[str]:
    """The system's libraries and Python's own, read-only; none of its installed packages."""
    mounts: list[str] = []
    base = Path(sys.base_prefix).resolve()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for folder in (Path("/usr"), Path("/lib"), Path("/lib64"), Path("/nix/store"), *([] if base.is_relative_to("/usr") else [base])):
        if folder.is_symlink():
            mounts += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.is_dir():
            mounts += ["--ro-bind", str(folder), str(folder)]
    # The system's own Python has its packages in other places.
    for packages in (base / "lib" / version / "site-packages", Path("/usr/lib/python3/dist-packages"), Path("/usr/local/lib") / version / "dist-packages"):
        if packages.is_dir():
            mounts += ["--tmpfs", str(packages), "--remount-ro", str(packages)]
    return [*mounts, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]


def _python() -> list[str]:
    """The interpreter without site packages, user packages or the current folder."""
    return [os.path.realpath(sys.executable), "-s", "-S", "-P", "-B"]
