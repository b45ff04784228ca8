"""A SLURM of one node on this machine, on loopback and in a folder of its own, from the distribution's packages.

apt-get install slurm-wlm slurm-wlm-basic-plugins munge libpmix-dev      (Debian; slurmd runs as root)
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "scancel", "squeue", "sinfo")

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
TmpFS={folder}/tmp
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
CommunicationParameters=NoAddrCache
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} Sockets=1 CoresPerSocket={cores} ThreadsPerCore=1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there can be none here."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"SLURM is not installed: no {missing[0]}"
    if os.geteuid() != 0:
        return "slurmd runs as root"
    return "needs two cores" if (os.cpu_count() or 1) < 2 else None


@contextmanager
def one_node(folder: Path) -> Iterator[dict[str, str]]:
    """Inside, a SLURM that those find who have this in their environment. Ends what it started."""
    for name in ("state", "spool", "tmp"):  # tmp: where PMIx refuses a folder that an earlier job of this number left
        (folder / name).mkdir(parents=True)
    values = {"host": socket.gethostname().partition(".")[0], "folder": folder, "ports": free_ports(2)}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values, cores=os.cpu_count()))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=yes\n")
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o400)
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    munge = [f"--{name}={folder}/munge.{end}" for name, end in (("socket", "socket"), ("key-file", "key"))]
    munge += [f"--{name}={folder}/munged.{end}" for name, end in (("pid-file", "pid"), ("seed-file", "seed"))]
    started = []
    try:
        for command in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = (folder / f"{command[0]}.log").open("w")
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
            time.sleep(0.5)
        until = time.monotonic() + 60
        while "idle" not in (said := subprocess.run(["sinfo"], env=environment, capture_output=True, text=True)).stdout:
            if time.monotonic() > until:
                raise RuntimeError(
                    f"SLURM did not start: {said.stdout}{said.stderr}{(folder / 'slurmd.log').read_text()}"
                )
            time.sleep(0.2)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
