"""Signals are noted while training and end the program at once before and after."""

import os
import signal
import subprocess
import sys
import time

from alignlab.launch.signals import ORDERLY, Inbox, Interrupted

import pytest


def test_deferred_signals_are_noted_and_the_first_one_counts() -> None:
    before = [signal.getsignal(number) for number in ORDERLY]
    said: list[str] = []
    with Inbox(said.append) as inbox:
        inbox.deferred = True
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert inbox.received == signal.SIGTERM
    assert said == ["SIGTERM: stopping after this step"]
    assert [signal.getsignal(number) for number in ORDERLY] == before


def test_a_second_ctrl_c_is_obeyed_at_once() -> None:
    with Inbox() as inbox:
        inbox.deferred = True
        os.kill(os.getpid(), signal.SIGINT)
        assert inbox.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", ORDERLY)
def test_outside_training_they_end_the_program(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as stop, Inbox():
        os.kill(os.getpid(), number)
    assert (stop.value.name, stop.value.exit_code) == (number.name, 128 + number)


def test_handlers_come_back_after_somebody_else_has_set_his() -> None:
    with Inbox() as inbox:
        inbox.deferred = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        inbox.keep()
        os.kill(os.getpid(), signal.SIGTERM)
        assert inbox.received == signal.SIGTERM


def test_what_nohup_has_switched_off_stays_off() -> None:
    code = "import os, signal\nfrom alignlab.launch.signals import Inbox\n"
    code += "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith Inbox():\n    os.kill(os.getpid(), signal.SIGHUP)\n"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_forked_worker_ignores_them() -> None:
    with Inbox() as inbox:
        inbox.deferred = True
        ready, begun = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(begun, b".")  # Python forgets signals that come while it forks
            time.sleep(0.3)
            os._exit(7 if inbox.received == 0 else 8)
        os.read(ready, 1)
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# Waits in one call into C that signals don't end, as a collective operation does, or in Python.
CALL = """
import ctypes, os, signal, sys, threading, time
from alignlab.launch.signals import Inbox

def unheard(number):
    print("unheard", number, flush=True)
    os._exit(7)

lock = ctypes.create_string_buffer(64)  # a mutex of pthreads, all zero
libc = ctypes.CDLL(None)
with Inbox(unheard=unheard, patience=0.5) as inbox:
    inbox.deferred = True
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    if sys.argv[1] == "in a call":
        libc.pthread_mutex_lock(lock)
        libc.pthread_mutex_lock(lock)
    time.sleep(8)
print("heard", inbox.received, flush=True)
"""


@pytest.mark.parametrize(("where", "said"), [("in a call", "unheard 15\n"), ("in Python", "heard 15\n")])
def test_a_signal_that_the_main_thread_cannot_hear_is_heard_all_the_same(where: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", CALL, where], capture_output=True, text=True, timeout=30)
    assert done.stdout == said, done.stderr
