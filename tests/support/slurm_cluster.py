"""A real Slurm of two nodes on this machine, for as long as a test needs it.

It takes slurmctld, slurmd, slurmstepd and the commands from PATH, or from the folder that ALIGNLAB_SLURM names, into which
Debian's packages were unpacked: `apt-get download slurmctld slurmd slurm-client slurm-wlm-basic-plugins libmunge2
libhwloc15 liblua5.1-0; for f in *.deb; do dpkg -x $f FOLDER; done`. Nobody is asked who he is (auth/none): not for work.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/none
CredType=cred/none
{plugins}
SlurmUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=p Nodes=n1,n2 Default=YES State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here; None: it can be started."""
    absent = [name for name in ("slurmctld", "slurmd", "slurmstepd", "srun", "sbatch", "salloc") if not _program(name)]
    if absent:
        return f"no {', '.join(absent)}; install slurm-wlm or unpack it into ALIGNLAB_SLURM"
    return None if os.geteuid() == 0 else "slurmd needs root"


@contextmanager
def cluster(folder: Path, ports: list[int]) -> Iterator[dict[str, str]]:
    """The environment for commands of a cluster with the nodes n1 and n2, whose files lie in a folder."""
    root, user = os.environ.get("ALIGNLAB_SLURM"), "root"
    libraries = f"{root}/usr/lib/x86_64-linux-gnu"
    plugins = f"PluginDir={libraries}/slurm-wlm" if root else ""
    host = socket.gethostname()
    (folder / "slurm.conf").write_text(CONF.format(host=host, ports=ports, plugins=plugins, user=user, folder=folder))
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    if root:
        env |= {"LD_LIBRARY_PATH": f"{libraries}:{libraries}/slurm-wlm", "PATH": f"{root}/usr/bin:{os.environ['PATH']}"}
    node = (_program("slurmd"), "-D", "-d", _program("slurmstepd"), "-N")
    daemons = []
    try:
        for command in ((_program("slurmctld"), "-D"), (*node, "n1"), (*node, "n2")):
            with (folder / "daemons.log").open("ab") as log:
                daemons.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))
            time.sleep(1.0)
        deadline = time.monotonic() + 60
        while "idle" not in _said(env, "sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)
        yield env
    finally:
        _said(env, "scancel", "--user", user)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _said(env: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout


def _program(name: str) -> str | None:
    root = os.environ.get("ALIGNLAB_SLURM")
    folders = [f"{root}/usr/bin", f"{root}/usr/sbin"] if root else []
    path = os.pathsep.join([*folders, os.environ["PATH"], "/usr/sbin"])
    return shutil.which(name, path=path) or shutil.which(f"{name}-wlm", path=path)
