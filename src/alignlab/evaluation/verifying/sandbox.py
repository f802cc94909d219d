"""Runs Python code that a model has written, in a process with limits.

Limits: wall clock and CPU time, memory, size and number of files, no processes of its own; a hook in the interpreter
refuses the network, other programs, and files outside a folder that is thrown away (the interpreter's own may be read).
Where the kernel lets us, the process has no network at all. It keeps mistakes and careless code in; it is no wall
against somebody who wants out.
"""

import ctypes
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # Linux' CLONE_NEWNET, CLONE_NEWUSER
_libc = ctypes.CDLL(None)
_MOST_OUTPUT = 65536  # bytes that are kept

# What runs first in the process; the code comes after the hook, the token after the code.
_GUARD = r"""
import os, sys
token, folder = sys.stdin.readline(), os.path.realpath(os.getcwd()) + os.sep
readable = tuple(os.path.realpath(p) + os.sep for p in {sys.prefix, sys.base_prefix, *sys.path} if p)
kept = {"/dev/null", "/dev/urandom", "/dev/random"}
refused = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "ctypes.", "pty.",
           "os.kill", "os.chroot", "os.setuid", "sys.addaudithook")
changing = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink",
            "os.truncate", "os.utime", "shutil.")
looking = ("os.listdir", "os.scandir", "os.walk", "os.chdir", "glob.")
def inside(path, also=()):
    if isinstance(path, int) or path is None:
        return True
    path = os.fsdecode(path)
    real = os.path.realpath(path)
    return (real + os.sep).startswith((folder, *also)) or real in kept
def guard(event, args, writes=os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
    if event == "open":
        path, mode, flags = args
        if not inside(path, () if (flags or 0) & writes else readable):
            raise PermissionError(f"{path} is outside the folder of this run")
    elif event.startswith(refused):
        raise PermissionError(f"{event} isn't allowed here")
    elif event.startswith(changing + looking):
        also = readable if event.startswith(looking) else ()
        for path in args[:2]:
            if isinstance(path, (str, bytes, os.PathLike)) and not inside(path, also):
                raise PermissionError(f"{path} is outside the folder of this run")
source = open("solution.py", encoding="utf-8").read()
def run(code, token, hook=sys.addaudithook):
    hook(guard)
    exec(code, {"__name__": "__main__"})
    sys.stdout.flush()
    os.write(1, ("\n" + token).encode())
code = compile(source, "solution.py", "exec")
said, token = token, ""
del token, source
run(code, said)
"""


class Ended(NamedTuple):
    """How it ended."""

    ok: bool  # the code came to its end
    output: str  # of standard output
    reason: str | None  # the last line of what went wrong


def run_python(
    code: str, *, seconds: float = 5.0, memory_bytes: int = 1 << 30, file_bytes: int = 1 << 20, stdin: str = ""
) -> Ended:
    """Runs code in a process of its own, in a folder of its own that is removed.

    Args:
        seconds: of the wall clock, and of CPU time.
        memory_bytes: of address space.
        file_bytes: of each file that it writes.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="alignlab-code-") as folder:
        Path(folder, "solution.py").write_text(code, encoding="utf-8", errors="replace")
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _GUARD],
            cwd=folder,
            env={"PATH": "/nonexistent", "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: _confine(seconds, memory_bytes, file_bytes),
        )
        try:
            out, err = process.communicate(f"{token}\n{stdin}".encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            return Ended(False, "", f"took longer than {seconds:g} s")
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
    said = out[-_MOST_OUTPUT:].decode(errors="replace")
    if said.rstrip("\n").endswith(token):
        return Ended(True, said.rstrip("\n").removesuffix(token).removesuffix("\n"), None)
    lines = [line for line in err[-_MOST_OUTPUT:].decode(errors="replace").splitlines() if line.strip()]
    if process.returncode < 0:
        lines = [f"killed by {signal.Signals(-process.returncode).name}"]
    return Ended(False, said, lines[-1] if lines else f"ended before its end (exit code {process.returncode})")


def _confine(seconds: float, memory_bytes: int, file_bytes: int) -> None:
    """For the child, before Python starts."""
    cpu = max(1, int(seconds) + 1)
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    with suppress(AttributeError):
        _libc.unshare(_NEW_USER | _NEW_NETWORK)  # not everywhere allowed; the hook refuses sockets all the same
