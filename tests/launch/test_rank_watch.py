"""Ranks as real processes that are killed, leave in order, or hang."""

import json
import signal
import socket
import subprocess
import sys
import time

from alignlab.launch.rank_watch import Address, RankDied, RankWatch, ended_how

import pytest

# A rank that joins, says so, and then hangs as in a collective operation; argv: address, rank, what to do on the word of a line.
RANK = """
import json, os, sys
from alignlab.launch.rank_watch import Address, RankWatch

def end(cause):
    print(cause, flush=True)
    os._exit(1)

watch = RankWatch(end, grace=0.2)
watch.join(Address(*json.loads(sys.argv[1])), int(sys.argv[2]))
print("joined", flush=True)
if sys.stdin.readline() == "leave\\n":
    watch.part()
    print("parted", flush=True)
    watch.leave()
"""


def start(address: Address, rank: int) -> subprocess.Popen:
    command = [sys.executable, "-c", RANK, json.dumps(address), str(rank)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "joined\n"
    return process


@pytest.fixture
def ends() -> list[RankDied]:
    return []


def test_a_killed_rank_is_named_and_the_others_end(ends: list[RankDied]) -> None:
    children: dict[int, subprocess.Popen] = {}
    watch = RankWatch(ends.append, lambda: children, grace=0.2)
    address = watch.listen("127.0.0.1", 3)
    children.update({rank: start(address, rank) for rank in (1, 2)})
    time.sleep(0.3)
    assert watch.cause(wait=0) is None
    children[1].send_signal(signal.SIGKILL)
    cause = watch.cause(wait=10)
    assert cause.startswith(f"rank 1 died (process {children[1].pid} on ")
    assert cause.endswith("): killed by SIGKILL (out of memory?)")
    assert children[2].stdout.readline().strip() == cause, "the others hear the same"
    assert children[2].wait(10) == 1, "and end although they hang"
    time.sleep(0.5)
    assert [str(end) for end in ends] == [cause]


def test_a_rank_of_another_starter_is_missed_too(ends: list[RankDied]) -> None:
    watch = RankWatch(ends.append, grace=0.2)
    process = start(watch.listen("127.0.0.1", 2), 1)
    time.sleep(0.7)
    process.kill()
    assert "rank 1 died" in watch.cause(wait=10) and "without a word" in watch.cause()
    process.wait()


def test_a_child_that_never_joined(ends: list[RankDied]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    watch = RankWatch(ends.append, lambda: {1: child}, grace=0.1)
    watch.watch_children()
    assert watch.cause(wait=10).endswith("it ended with exit code 3")


def test_leaving_is_no_death(ends: list[RankDied]) -> None:
    watch = RankWatch(ends.append, grace=0.2)
    process = start(watch.listen("127.0.0.1", 2), 1)
    time.sleep(0.7)
    process.stdin.write("leave\n")
    process.stdin.flush()
    assert process.stdout.readline() == "parted\n"
    assert watch.cause(wait=1) is None
    assert process.poll() is None, "rank zero ends first"
    watch.part()
    watch.leave()
    assert process.wait(10) == 0 and ends == []


def test_rank_zero_dies_or_leaves() -> None:
    script = "import json, sys, time\nfrom alignlab.launch.rank_watch import RankWatch\nwatch = RankWatch(print)\n"
    script += "print(json.dumps(watch.listen('127.0.0.1', 2)), flush=True)\n"
    script += "sys.stdin.readline()\nwatch.part()\nwatch.leave()\n"
    for word, expected in (("leave\n", 0), (None, 1)):
        zero = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process = start(Address(*json.loads(zero.stdout.readline())), 1)
        time.sleep(0.7)
        if word is None:
            zero.kill()
            assert process.stdout.readline() == "rank 0 died: its connection ended without a word\n"
        else:
            zero.stdin.write(word)
            zero.stdin.flush()
            time.sleep(1)
            process.stdin.write("leave\n")
            process.stdin.flush()
        assert process.wait(10) == expected
        zero.wait(10)


def test_strangers_are_not_let_in(ends: list[RankDied]) -> None:
    watch = RankWatch(ends.append, grace=0.1)
    address = watch.listen("127.0.0.1", 2)
    process = start(address._replace(word="wrong"), 1)
    time.sleep(0.7)
    process.kill()
    process.wait()
    assert watch.cause(wait=0.5) is None and ends == []


def test_exit_codes_in_words() -> None:
    assert ended_how(-signal.SIGSEGV) == "killed by SIGSEGV"
    assert ended_how(2) == "it ended with exit code 2"


# Two ranks of a gloo group. Rank 1 ends in order; rank 0 begins one more collective operation, or is busy alone; argv: port, rank, what rank 0 does.
MEETING = """
import os, sys, time
import torch, torch.distributed as dist
from alignlab.launch.rank_watch import RankWatch

port, rank, then = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE="2")
dist.init_process_group("gloo")

def end(cause):
    print(type(cause).__name__, cause, flush=True)
    os._exit(3)

watch = RankWatch(end, grace=0.2, standstill=1.5)
address = [watch.listen("127.0.0.1", 2) if rank == 0 else None]
dist.broadcast_object_list(address)
if rank == 1:
    watch.join(address[0], 1)
dist.barrier()
if rank == 0 and then == "waits":
    dist.all_reduce(torch.ones(1))
if rank == 0 and then == "busy":
    time.sleep(4)
watch.part()
watch.leave()
print("left in order", flush=True)
os._exit(0)
"""


@pytest.mark.distributed
@pytest.mark.parametrize(("then", "code"), [("waits", 3), ("busy", 0)])
def test_a_rank_that_waits_for_one_that_has_left_is_ended(then: str, code: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-c", MEETING, port]
    zero, one = (subprocess.Popen([*command, rank, then], stdout=subprocess.PIPE, text=True) for rank in "01")
    try:
        said, _ = zero.communicate(timeout=60)
        assert zero.returncode == code, said
        assert one.wait(10) == 0
    finally:
        for process in (zero, one):
            process.kill()
            process.wait()
    if then == "waits":
        assert said.startswith("RankLeft rank 0 has waited for ") and "for rank 1, which ended in order" in said
    else:
        assert said == "left in order\n"
