"""What runs inside the two sandboxes of `code.py`. A script of the standard library alone: it is handed over as text, not imported.

    supervisor --socket--> judge (the problem's tests) --socket--> candidate (the model's code)

The candidate gets its source and then calls, and answers with plain values; it never sees a test. The judge runs the tests against
stand-ins of the candidate's functions. Everything that crosses is JSON, decoded into fresh values of built-in types, so that no
`__eq__`, no patched module and no printed line of the candidate reaches the comparison. The judge alone knows the token of success.
"""

import builtins
import json
import os
import resource
import struct
import sys

LENGTH = struct.Struct("!I")
MOST = 4 << 20
"""Bytes of one message."""
WORTH_A_HEX = 1 << 63
PLAIN = "None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict"


class Failed(BaseException):
    """The candidate's doing, whatever the tests make of it. No `except Exception` of a test gets hold of it."""


class Broken(BaseException):
    """The tests' own fault."""


def describe(error):
    """What is said of an exception that the candidate's function raised; None for one of the tests' own."""
    return getattr(error, "of_answer", None)


# ------------------------------------------------------------------------------------------------------------------ messages


def send(fd, message):
    data = json.dumps(message).encode()
    if len(data) > MOST:
        raise ValueError("too large")
    data = memoryview(LENGTH.pack(len(data)) + data)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd):
    """One message; None at the end of the stream. Raises ValueError or RecursionError for what is none."""
    header = exactly(fd, LENGTH.size)
    if header is None:
        return None
    (size,) = LENGTH.unpack(header)
    if size > MOST:
        raise ValueError("too large")
    data = exactly(fd, size)
    return None if data is None else json.loads(data)


def exactly(fd, size):
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def encode(value):
    """A value of the plain types, or of a type derived from one, as JSON that keeps them apart. Raises TypeError for any other."""
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, int):
        return int(value) if -WORTH_A_HEX < value < WORTH_A_HEX else {"i": hex(value)}
    if isinstance(value, list):
        return [encode(v) for v in value]
    for kind, tag in ((tuple, "t"), (set, "s"), (frozenset, "z")):
        if isinstance(value, kind):
            return {tag: [encode(v) for v in value]}
    if isinstance(value, dict):
        return {"d": [[encode(k), encode(v)] for k, v in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"b": value.hex()}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    raise TypeError(type(value).__name__)


def decode(data):
    """The value that `encode` wrote, made anew. Raises ValueError, TypeError or KeyError for anything else."""
    if isinstance(data, list):
        return [decode(v) for v in data]
    if not isinstance(data, dict):
        return data
    ((tag, inner),) = data.items()
    if tag == "i":
        return int(inner, 16)
    if tag == "b":
        return bytes.fromhex(inner)
    if tag == "c":
        return complex(*map(float, inner))
    if tag == "d":
        return {decode(k): decode(v) for k, v in inner}
    return {"t": tuple, "s": set, "z": frozenset}[tag](decode(v) for v in inner)


# ----------------------------------------------------------------------------------------------------------------- candidate


def candidate(memory_bytes, cpu_seconds):
    wire = enter(memory_bytes, cpu_seconds)
    send(wire, {"ready": True})
    job = receive(wire) or {}
    namespace = {"__name__": "answer", "__builtins__": builtins}
    try:
        exec(compile(job["source"], "<answer>", "exec"), namespace)
        send(wire, {"missing": [name for name in job["names"] if not callable(namespace.get(name))]})
    except BaseException as error:
        send(wire, raised(error))
    while (call := receive(wire)) is not None:
        try:
            value = namespace[call["name"]](*decode(call["args"]), **decode(call["kwargs"]))
        except BaseException as error:
            send(wire, raised(error))
            continue
        try:
            send(wire, {"value": encode(value)})
        except (TypeError, ValueError, RecursionError, MemoryError) as error:
            send(wire, {"unsent": f"{type(value).__name__}" if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"[:100]})


def raised(error):
    try:
        message = str(error)[:200]
    except BaseException:
        message = ""
    return {"raised": type(error).__name__, "message": message, "caught": isinstance(error, Exception)}


def enter(memory_bytes, cpu_seconds):
    """Set the limits and keep our socket apart from what the code takes for its standard input and output."""
    wire = os.dup(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 4 << 20),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (value, value))
    return wire


# --------------------------------------------------------------------------------------------------------------------- judge


class Remote:
    """The candidate, as the tests see it: functions that are called elsewhere."""

    def __init__(self, wire):
        self.wire = wire
        self.calls = 0
        self.failure = None

    def fail(self, reason):
        self.failure = self.failure or reason
        raise Failed(reason)

    def ask(self, message):
        if self.failure:
            raise Failed(self.failure)
        try:
            send(self.wire, message)
            reply = receive(self.wire)
        except OSError:
            reply = None
        except (ValueError, RecursionError, MemoryError):
            self.fail("the code returned what cannot be read")
        if reply is None:
            self.fail("the process ended before the tests did")
        if not isinstance(reply, dict):
            self.fail("the code returned what cannot be read")
        if "raised" in reply and not reply.get("caught"):
            self.fail(f"the code raised {str(reply['raised'])[:50]}")
        return reply

    def load(self, source, names):
        reply = self.ask({"source": source, "names": names})
        if "raised" in reply:
            self.fail(f"the code raised {str(reply['raised'])[:50]}: {str(reply.get('message'))[:200]}")
        if reply.get("missing") != []:
            self.fail(f"the code defines no function {', '.join(map(str, reply.get('missing') or names))}"[:200])

    def function(self, name):
        def call(*args, **kwargs):
            try:
                message = {"name": name, "args": encode(args), "kwargs": encode(kwargs)}
                if len(json.dumps(message)) > MOST:
                    raise Broken(f"the tests hand {name} arguments of more than {MOST} bytes")
            except TypeError as error:
                raise Broken(f"the tests hand {name} a {error}; arguments may be of the types {PLAIN}") from None
            self.calls += 1
            reply = self.ask(message)
            if "unsent" in reply:
                self.fail(f"the function returned a value that is not plain ({str(reply['unsent'])[:100]})")
            if "raised" in reply:
                raise self.exception(reply)
            try:
                return decode(reply["value"])
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError, OverflowError):
                self.fail("the code returned what cannot be read")

        call.__name__ = call.__qualname__ = name
        return call

    def exception(self, reply):
        """The candidate's exception as the built-in one of its name, so that tests may expect it. Not one that ends a loop quietly."""
        kind = getattr(builtins, str(reply["raised"]), None)
        message = str(reply.get("message"))[:200]
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, (StopIteration, StopAsyncIteration)):
            kind = RuntimeError
        try:
            error = kind(message)
        except TypeError:
            error = RuntimeError(message)
        setattr(error, "of_answer", f"the function raised {str(reply['raised'])[:50]}: {message}")  # noqa: B010
        return error


def judge(channel, memory_bytes, cpu_seconds):
    supervisor = enter(memory_bytes, cpu_seconds)
    job = receive(supervisor) or {}
    try:
        tests = compile(job["tests"], "<tests>", "exec")
    except (SyntaxError, ValueError) as error:
        send(supervisor, {"broken": f"the tests cannot be compiled ({error})"})
        return
    if receive(channel) is None:
        send(supervisor, {"broken": "the sandbox of the code did not start", "sandbox": True})
        return
    send(supervisor, {"ready": True})
    remote = Remote(channel)
    send(supervisor, verdict(remote, tests, job))


def verdict(remote, tests, job):
    names = job["names"]
    namespace = {"__name__": "tests", **{name: remote.function(name) for name in names}}
    try:
        remote.load(job["source"], names)
        exec(tests, namespace)
        if not remote.calls and callable(namespace.get("check")):
            namespace["check"](namespace[names[0]])
    except Failed:
        pass
    except Broken as error:
        return {"broken": str(error)}
    except AssertionError as error:
        if remote.calls:
            return {"wrong": describe(error) or f"a test failed (line {line_of(error)})"}
        return {"broken": f"the tests fail before they call {names[0]}"}
    except BaseException as error:
        theirs = describe(error)
        if not theirs and (not remote.calls or isinstance(error, (NameError, ImportError, SyntaxError))) and not remote.failure:
            return {"broken": f"the tests raised {type(error).__name__}: {str(error)[:200]}"}
        return {"wrong": theirs or f"a test raised {type(error).__name__} (line {line_of(error)})"}
    if remote.failure:
        return {"wrong": remote.failure}
    if not remote.calls:
        return {"broken": f"the tests never call {', '.join(names)}"}
    return {"passed": job["token"]}


def line_of(error):
    """The line of the tests that an exception came from."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


if __name__ == "__main__":
    {"candidate": candidate, "judge": judge}[sys.argv[1]](*map(int, sys.argv[2:]))
