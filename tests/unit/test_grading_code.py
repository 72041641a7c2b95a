"""Code answers: extraction, tests kept apart, and every way out of the sandbox that we could think of."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ticking import ticking

from mulligan.config import GraderConfig
from mulligan.errors import ConfigError
from mulligan.grading import code as code_module
from mulligan.grading import make_grader, sandbox
from mulligan.grading.code import MAX_CODE, CodeGrader, CodeTests, check_sandbox, extract_code, grade_code, read_tests, run
from mulligan.grading.code_child import decode, encode
from mulligan.tasks import load_problems, self_check
from mulligan.types import Problem, VerdictKind


def sandbox_missing():
    try:
        check_sandbox()
    except ConfigError as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(sandbox_missing()), reason=f"no sandbox: {sandbox_missing()}")
SQUARE = "def f(x):\n    return x * x\n"
META = {"tests": "assert f(2) == 4\nassert f(-3) == 9", "entry_point": "f"}


def problem(**meta):
    return Problem("p", "Write f.", SQUARE, "code", meta=META | meta)


def fenced(code):
    return f"Here it is.\n```python\n{code}\n```\nDone."


def judge(code, *, deadline=3.0, memory_mb=256, **meta):
    return grade_code(problem(**meta), fenced(code), deadline=deadline, memory_mb=memory_mb)


def sandboxes():
    """Processes of sandboxes that are alive, wherever they hang in the tree."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if (b"candidate" in words or b"judge" in words) and (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(path.name)
        except OSError:  # it ended just now
            pass
    return found


# ---------------------------------------------------------------------------------------------------------------- extraction


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na\n```", "a"),
        ("```\na\n```", "a"),
        ("```py\na\n```\ntext\n```python\nb\n```", "b"),
        ("```python\na\n```\nIt prints\n```\n4\n```", "a"),
        ("```python\na\n```\n```text\n4\n```", "a"),
        ("```\na\n```\n```\nb\n```", "b"),
        ("```python\na\n```\n```python\nb", "a"),
        ("~~~python\na\n```\nb\n~~~", "a\n```\nb"),
        ("````python\n```\n````", "```"),
        ("  ```python\n  def f():\n    return 1\n  ```", "def f():\n  return 1"),
        ("```python title=x\r\na\r\n```\r\n", "a"),
        ("```python\n```", ""),
        ("```javascript\na\n```", None),
        ("`a` and ```b```", None),
        ("```python\na", None),
        ("", None),
    ],
)
def test_extraction(text, code):
    assert extract_code(text) == code


def test_extraction_is_linear():
    text = "```python\n" * 200_000 + "`" * 1_000_000 + "x"
    start = time.perf_counter()
    assert extract_code(text) is None
    assert time.perf_counter() - start < 2


def test_no_answer_and_too_long_start_nothing():
    assert grade_code(problem(), "no code", deadline=1, memory_mb=64).kind is VerdictKind.NO_ANSWER
    assert grade_code(problem(), "```python\n\n```", deadline=1, memory_mb=64).kind is VerdictKind.NO_ANSWER
    verdict = grade_code(problem(), fenced("#" * (MAX_CODE + 1)), deadline=1, memory_mb=64)
    assert verdict.kind is VerdictKind.WRONG and "longer" in verdict.reason


@pytest.mark.parametrize("meta", [{"tests": ""}, {"tests": None}, {"tests": 5}, {"tests": [1]}, {"entry_point": ""}, {"entry_point": None}, {"entry_point": "a b"}, {"entry_point": [3]}])
def test_a_problem_without_usable_tests_is_ungradable(meta):
    verdict = grade_code(problem(**meta), fenced(SQUARE), deadline=1, memory_mb=64)
    assert verdict.kind is VerdictKind.UNGRADABLE and "meta" in verdict.reason


def test_tests_may_be_a_list_and_name_several_functions():
    assert read_tests({"tests": ["a", "b"], "entry_point": ["f", "g"]}) == CodeTests("a\nb", ("f", "g"))


def test_values_cross_unchanged():
    value = [None, True, 1, -(10**30), 1.5, float("inf"), "ä\ud800", b"\0", (1, (2,)), {1, 2}, frozenset({3}), {"a": [1], (1, 2): {}}, 1 + 2j]
    assert decode(json.loads(json.dumps(encode(value)))) == value
    for bad in (object(), iter([]), range(3), [lambda: 1]):
        with pytest.raises(TypeError):
            encode(bad)


# -------------------------------------------------------------------------------------------------------------------- refusal


def test_a_clear_refusal_without_bubblewrap(monkeypatch):
    sandbox._find.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"grader\.code.*apt-get install bubblewrap"):
        sandbox._find()
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match=r"x86_64 or aarch64"):
        sandbox._find()
    sandbox._find.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")
def test_a_sandbox_that_cannot_be_made_is_ungradable_not_wrong(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sandbox, "_find", lambda: (str(broken), frozenset()))
    verdict = judge(SQUARE)
    assert verdict.kind is VerdictKind.UNGRADABLE and "No permissions" in verdict.reason
    monkeypatch.setattr(sandbox, "_find", lambda: (str(tmp_path / "none"), frozenset()))
    assert judge(SQUARE).kind is VerdictKind.UNGRADABLE
    check_sandbox.cache_clear()
    monkeypatch.setattr(sandbox, "_find", lambda: (str(broken), frozenset()))
    with pytest.raises(ConfigError, match=r"allow unprivileged user namespaces"):
        check_sandbox()
    check_sandbox.cache_clear()


# ------------------------------------------------------------------------------------------------------------- right and wrong


@needs_sandbox
@pytest.mark.parametrize(
    ("code", "meta"),
    [
        (SQUARE, {}),
        ("import math\nclass A: pass\ndef f(x):\n    print('x'); return int(math.pow(x, 2))", {}),
        ("def f(x):\n    return x * x\nif __name__ == '__main__':\n    print(input())", {}),
        ("import threading\nout = []\ndef f(x):\n    t = threading.Thread(target=out.append, args=(x * x,)); t.start(); t.join(); return out[-1]", {}),
        ("def f(*a, k=0):\n    return (list(a), {k}, None)", {"tests": "assert f(1, 'b', k=2) == ([1, 'b'], {2}, None)"}),
        ("def f(x):\n    if x < 0: raise ValueError('negative')\n    return x", {"tests": "assert f(1) == 1\ntry:\n    f(-1)\n    assert False\nexcept ValueError as e:\n    assert 'neg' in str(e)"}),
        ("def f(x):\n    return x / 3", {"tests": "import math\nassert math.isclose(f(1), 0.333333333, rel_tol=1e-6)"}),
        (SQUARE, {"tests": "def check(candidate):\n    for i in range(50):\n        assert candidate(i) == i ** 2\n"}),
        ("def g(x): return f(x) + 1\ndef f(x): return x", {"tests": ["assert f(1) == 1", "assert g(1) == 2"], "entry_point": ["f", "g"]}),
        ("from collections import Counter, namedtuple\nP = namedtuple('P', 'a b')\ndef f(x): return Counter(x), P(1, 2)", {"tests": "assert f('aab') == ({'a': 2, 'b': 1}, (1, 2))"}),
        ("def f(n): return 2 ** n", {"tests": "assert f(20000) == 1 << 20000"}),
        ("def f(x):\n    with open('note.txt', 'w') as n: n.write('1')\n    return int(open('note.txt').read())", {"tests": "assert f(0) == 1"}),
    ],
)  # fmt: skip
def test_right_code_passes(code, meta):
    verdict = judge(code, **meta)
    assert verdict.correct, verdict.reason
    assert 0 < verdict.ms < 3000 and verdict.answer == code


WRONG = {
    "a wrong value": ("def f(x): return x + 2", "a test failed (line 2)"),
    "syntax": ("def f(x) return", "SyntaxError"),
    "another name": ("def g(x): return x * x", "defines no function f"),
    "not a function": ("f = 4", "defines no function f"),
    "raises": ("def f(x): raise KeyError('k')", "raised KeyError"),
    "raises on import": ("1 / 0", "raised ZeroDivisionError"),
    "none": ("def f(x): pass", "a test failed"),
    "os._exit": ("import os\nos._exit(0)", "the process ended"),
    "os._exit in a call": ("import os\ndef f(x): os._exit(0)", "the process ended"),
    "SystemExit": ("raise SystemExit(0)", "raised SystemExit"),
    "sys.exit in a call": ("import sys\ndef f(x): sys.exit(0)", "raised SystemExit"),
    "KeyboardInterrupt": ("def f(x): raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    "StopIteration": ("def f(x): raise StopIteration", "raised StopIteration"),
    "AssertionError": ("def f(x): raise AssertionError", "raised AssertionError"),
    "fork": ("import os\ndef f(x):\n    os.fork(); return x * x", "forbidden system call"),
    "fork bomb": ("import os\nwhile True: os.fork()", "forbidden system call"),
    "orphan": ("import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\n" + SQUARE, "forbidden system call"),
    "subprocess": ("import subprocess\nsubprocess.run(['/usr/bin/true'])\n" + SQUARE, "forbidden system call"),
    "system": ("import os\nos.system('true')\n" + SQUARE, "forbidden system call"),
    "posix_spawn": ("import os\nos.posix_spawn('/usr/bin/true', ['true'], {})\n" + SQUARE, "forbidden system call"),
    "exec": ("import os\nos.execv('/usr/bin/true', ['true'])", "the process ended"),
    "socket": ("import socket\nsocket.socket()\n" + SQUARE, "forbidden system call"),
    "connection": ("import socket\nsocket.create_connection(('127.0.0.1', 9), 1)\n" + SQUARE, "raised|forbidden"),
    "ptrace": ("import ctypes\nctypes.CDLL(None).ptrace(16, 1, 0, 0)\n" + SQUARE, "forbidden system call"),
    "namespaces": ("import ctypes\nctypes.CDLL(None).unshare(0x10000000)\n" + SQUARE, "forbidden system call"),
    "mount": ("import ctypes\nctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0)\n" + SQUARE, "forbidden system call"),
    "signal to itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed"),
    "signal to all": ("import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(os.getppid(), 9)\n" + "def f(x): return 0", "failed|ended|killed|raised"),
    "sleep": ("import time\ndef f(x): time.sleep(60)", "timeout"),
    "loop": ("def f(x):\n    while True: pass", "timeout"),
    "loop that ignores signals": ("import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass", "timeout"),
    "threads without end": ("import threading\ndef f(x):\n    while True:\n        threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()", "timeout|RuntimeError|MemoryError|ended|killed"),
    "memory": ("def f(x): return len(bytearray(10 ** 10))", "MemoryError"),
    "memory bit by bit": ("def f(x):\n    a = []\n    while True: a.append(' ' * 1000000)", "MemoryError|ended|killed|timeout"),
    "a huge file": ("def f(x):\n    with open('big', 'wb') as b: b.write(bytes(10 ** 8))", "raised"),
    "many files": ("def f(x):\n    for i in range(40): open(str(i), 'wb').write(bytes(10 ** 6))", "raised OSError"),
    "writes outside": ("def f(x): open('/usr/lib/x', 'w')", "raised OSError"),
    "writes at the root": ("def f(x): open('/x', 'w')", "raised OSError"),
    "a function": ("def f(x): return lambda: 4", "not plain"),
    "an object equal to all": ("class E:\n    def __eq__(self, o): return True\ndef f(x): return E()", "not plain"),
    "an int equal to all": ("class E(int):\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return E(5)", "a test failed"),
    "a list equal to all": ("class E(list):\n    def __eq__(self, o): return True\ndef f(x): return E()", "a test failed"),
    "patched builtins": ("import builtins\nbuiltins.AssertionError = Exception\nbuiltins.isinstance = lambda *a: True\nbuiltins.len = lambda x: 4\ndef f(x): return 5", "failed|read|plain|raised|ended"),
    "patched comparison": ("import operator\noperator.eq = lambda a, b: True\nimport unittest\ndef f(x): return 5", "a test failed"),
    "a cycle": ("def f(x):\n    a = []; a.append(a); return a", "not plain .RecursionError"),
    "a deep value": ("def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a", "not plain|ended|timeout"),
    "a large value": ("def f(x): return 'x' * 50_000_000", "not plain .ValueError|timeout"),
    "prints success": ("import os, sys\nfor fd in range(64):\n    try: os.write(fd, b'\\0\\0\\0\\x10{\"passed\": true}')\n    except OSError: pass\ndef f(x): return 5", "failed|read|raised|ended|defines"),
    "forges messages": (
        "import os, json, struct\ndef f(x):\n    for d in ({'passed': ''}, {'ready': True}, {'value': 5}):\n        m = json.dumps(d).encode()\n"
        "        for fd in range(3, 64):\n            try: os.write(fd, struct.pack('!I', len(m)) + m)\n            except OSError: pass\n    return 5",
        "failed|read|raised|ended",
    ),
    "sends rubbish": ("import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\xff' * 100)\n    except OSError: pass", "read|ended"),
    "sends a nested bomb": (
        "import os, struct\nm = b'[' * 1000000\nfor fd in range(3, 64):\n    try: os.write(fd, struct.pack('!I', len(m)) + m)\n    except OSError: pass",
        "read|ended|timeout",
    ),
    "sends unknown tags": ("import os, struct\nm = b'{\"value\": {\"q\": 1}}'\nfor _ in range(2):\n    for fd in range(3, 64):\n        try: os.write(fd, struct.pack('!I', len(m)) + m)\n        except OSError: pass\n" + SQUARE, "read|failed|defines"),
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("name", WRONG)
def test_wrong_with_reason_and_nothing_left(name):
    code, reason = WRONG[name]
    start = time.monotonic()
    verdict = judge(code, deadline=2.0)
    assert verdict.kind is VerdictKind.WRONG, verdict
    assert any(part in verdict.reason.replace("(", ".", 1) or part in verdict.reason for part in reason.split("|")), verdict.reason
    assert time.monotonic() - start < 8
    assert not sandboxes()


@needs_sandbox
def test_tests_that_swallow_exceptions_are_not_fooled_by_a_dead_process():
    swallowing = "for x in (2, 3):\n    try:\n        assert f(x) == x * x\n    except Exception:\n        pass\n    except BaseException:\n        pass"
    assert judge("import os\ndef f(x): os._exit(0)", tests=swallowing).kind is VerdictKind.WRONG
    lazy = "assert all(map(f, [1, 2, 3]))\nassert list(map(f, [1])) == [1]"
    assert judge("def f(x): raise StopIteration", tests="assert all(map(f, [1, 2]))").kind is VerdictKind.WRONG
    assert judge("def f(x): return x", tests=lazy).correct


@needs_sandbox
def test_the_tests_are_out_of_sight():
    """The code looks through its whole world for a word that stands in the tests alone; were it found, the answer would be right."""
    spy = """
import gc, os, sys
def found():
    word = "needle" + "413"
    for top, _, files in os.walk("/"):
        if top.startswith("/usr") or "/lib/python" in top: continue
        for name in files:
            try:
                if word in open(os.path.join(top, name), errors="replace").read(1 << 20): return True
            except Exception: pass
    for o in gc.get_objects():
        try:
            if isinstance(o, dict) and any(isinstance(v, str) and word in v for v in o.values()): return True
        except Exception: pass
    frame = sys._getframe()
    while frame:
        if any(isinstance(v, str) and word in v for v in frame.f_locals.values() if v is not word): return True
        frame = frame.f_back
    return word in " ".join(sys.argv) or word in str(os.environ)
def f(x): return 413 if found() else 0
"""
    verdict = judge(spy, deadline=20.0, tests="# needle413\nassert f(1) == 413")
    assert verdict.kind is VerdictKind.WRONG and verdict.reason == "a test failed (line 2)"


@needs_sandbox
def test_the_sandbox_sees_no_files_no_network_no_processes(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    look = f"""
import os
def f(what):
    if what == "home": return [p for p in ("/root", "/home", "/etc/passwd", {str(Path(__file__))!r}, {str(secret)!r}, {os.getcwd()!r}) if os.path.isfile(p) or (os.path.isdir(p) and p != "/root" and os.listdir(p))]
    if what == "id": return os.getuid()
    if what == "net": return sorted(os.listdir("/sys/class/net")) if os.path.exists("/sys") else []
    if what == "parents": return os.getppid() < 5
    if what == "environ": return sorted(k for k in os.environ if k not in ("PYTHONHASHSEED", "LC_ALL", "HOME", "PWD"))
    if what == "left": return os.listdir(".")
    open("left", "w").close()
"""
    tests = 'assert f("home") == []\nassert f("id") == 65534\nassert f("net") == []\nassert f("parents")\nassert f("environ") == []\nassert f("left") == []\nassert f("") is None\nassert f("left") == ["left"]'
    for _ in range(2):  # the folder is a new one each time
        verdict = judge(look, tests=tests)
        assert verdict.correct, verdict.reason


@needs_sandbox
def test_a_server_of_the_machine_is_out_of_reach():
    """Not even through a socket of an earlier life: the network is another one, and the call itself is deadly."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        code = f"import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)\n    return x * x"
        assert judge(code).kind is VerdictKind.WRONG
        with pytest.raises(TimeoutError):
            server.accept()


@needs_sandbox
@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("assert f(2) ==", "cannot be compiled"),
        ("assert 1 == 1", "never call f"),
        ("assert 1 == 2", "fail before they call"),
        ("import numpy\nassert f(1) == 1", "ModuleNotFoundError"),
        ("assert f(2) == 4\nassert nobody == 1", "NameError"),
        ("assert f(lambda: 1) == 1", "arguments may be"),
        ("raise SystemExit", "raised SystemExit"),
    ],
)
def test_broken_tests_are_ungradable(tests, reason):
    verdict = judge(SQUARE, tests=tests)
    assert verdict.kind is VerdictKind.UNGRADABLE and reason in verdict.reason


@needs_sandbox
def test_an_answer_like_a_broken_test_is_wrong():
    """NameError and AssertionError of the code are the code's."""
    assert judge("def f(x): return nobody").reason.startswith("the function raised NameError")
    assert judge("import numpy_that_is_not_there").kind is VerdictKind.WRONG


def test_messages_that_come_together_are_read_one_after_the_other():
    ours, judge_end = socket.socketpair()
    with ours, judge_end:
        sent = [{"ready": True}, {"passed": "x" * 100}]
        judge_end.sendall(b"".join(code_module.LENGTH.pack(len(data)) + data for data in (json.dumps(m).encode() for m in sent)))
        assert [code_module._receive(ours, time.monotonic() + 5) for _ in sent] == sent


@needs_sandbox
def test_many_at_once_without_blocking_the_loop():
    async def main():
        grader = CodeGrader(workers=2, deadline=1.0, memory_mb=256)
        texts = [fenced(SQUARE), fenced("def f(x):\n    while True: pass"), fenced("def f(x): return 1"), "nothing"] * 2
        async with ticking() as ticks:
            verdicts = await asyncio.gather(*(grader.grade(problem(), text) for text in texts))
        grader.close()
        grader.close()
        return [v.kind.value for v in verdicts], ticks[0]

    kinds, ticks = asyncio.run(main())
    assert kinds == ["correct", "wrong", "wrong", "no_answer"] * 2
    assert ticks > 30


@needs_sandbox
def test_nothing_is_left_and_nothing_leaks():
    run(SQUARE, CodeTests("assert f(2) == 4", ("f",)), deadline=2.0, memory_mb=256)
    before = len(os.listdir("/proc/self/fd"))
    for code in (SQUARE, "import os\nos._exit(3)", "def f(x): return 5"):
        run(code, CodeTests("assert f(2) == 4", ("f",)), deadline=2.0, memory_mb=256)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not sandboxes()


@needs_sandbox
def test_a_trainer_that_dies_takes_its_sandboxes_along():
    script = (
        "import sys; sys.path[:] = " + repr(sys.path) + "\n"
        "from mulligan.grading.code import CodeTests, run\n"
        "import threading, time\n"
        "threading.Timer(1.0, lambda: print('on', flush=True)).start()\n"
        "run('def f(x):\\n    while True: pass', CodeTests('f(1)', ('f',)), deadline=60.0, memory_mb=256)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline(), "it did not start"
    before = sandboxes()
    assert len(before) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 5
    while sandboxes() & before and time.monotonic() < end:
        time.sleep(0.05)
    assert not sandboxes() & before


# -------------------------------------------------------------------------------------------------------------------- routing


@pytest.mark.parametrize("config", [GraderConfig(), GraderConfig(kind="math")])
def test_code_is_off_unless_the_recipe_says_so(config):
    grader = make_grader(config)
    try:
        if config.kind is None:
            with pytest.raises(ConfigError, match=r"grader\.code = true"):
                asyncio.run(grader.grade(problem(), fenced(SQUARE)))
        else:
            assert asyncio.run(grader.grade(problem(), fenced(SQUARE))).kind is VerdictKind.NO_ANSWER, "graded as mathematics, nothing runs"
    finally:
        grader.close()
    with pytest.raises(ConfigError, match=r"grader\.code = true"):
        make_grader(GraderConfig(kind="code"))


@needs_sandbox
def test_code_by_recipe():
    grader = make_grader(GraderConfig(code=True, code_deadline=0.5))
    try:
        assert asyncio.run(grader.grade(problem(), fenced(SQUARE))).correct
        verdict = asyncio.run(grader.grade(problem(), fenced("def f(x):\n    while True: pass")))
        assert verdict.kind is VerdictKind.WRONG and verdict.reason == "timeout" and 500 <= verdict.ms < 1500
    finally:
        grader.close()
    hungry = fenced("def f(x): return len(bytearray(300 << 20)) and x * x")
    for memory_mb, correct in ((1024, True), (128, False)):
        grader = make_grader(GraderConfig(code=True, memory_mb=memory_mb))
        try:
            verdict = asyncio.run(grader.grade(problem(), hungry))
        finally:
            grader.close()
        assert verdict.correct is correct
        assert correct or "MemoryError" in str(verdict.reason)


def test_recipes_that_allow_code_are_refused_where_there_is_no_sandbox(monkeypatch):
    check_sandbox.cache_clear()
    sandbox._find.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="bubblewrap"):
        make_grader(GraderConfig(code=True))
    sandbox._find.cache_clear()
    check_sandbox.cache_clear()


@needs_sandbox
def test_problems_from_a_file_bring_their_tests(tmp_path):
    path = tmp_path / "code.jsonl"
    path.write_text(json.dumps({"question": "Square.", "answer": SQUARE, "meta": META}) + "\n")
    problems = load_problems(f"{path}?grader=code")
    grader = make_grader(GraderConfig(code=True))
    try:
        checked = asyncio.run(self_check(problems, grader))
        assert len(checked) == 1 and checked.problems[0].meta == META
    finally:
        grader.close()


@pytest.mark.parametrize("base", ["/usr", "/usr/local", sys.base_prefix])
def test_every_python_finds_itself_in_the_sandbox(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own (prefix /usr), one below it, and one with a prefix of its own."""
    monkeypatch.setattr(sys, "base_prefix", base)
    mounts = sandbox._mounts()
    bound = [mounts[i + 1] for i, word in enumerate(mounts) if word == "--ro-bind"]
    assert len(set(bound)) == len(bound)
    assert any(Path(base).resolve().is_relative_to(folder) for folder in bound)
    assert "/usr" in bound
