"""A SLURM of one node here: munged, slurmctld and slurmd of Debian, with configuration, keys and ports of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def why_not() -> str:
    """The reason why it cannot be started here; empty if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback device that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configuration(folder: Path, cpus: int) -> str:
    """``slurm.conf``: two jobs at once, no accounts, no cgroups; a job queued again may begin after 6 s, not 121."""
    controller, node = free_ports(2)
    name = socket.gethostname().partition(".")[0]
    state, spool = folder / "state", folder / "spool"
    state.mkdir()
    spool.mkdir()
    return f"""ClusterName=test
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={state}
SlurmdSpoolDir={spool}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=300
KillWait=5
JobRequeue=1
InactiveLimit=0
NodeName={name} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=only Nodes={name} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


@contextmanager
def slurm(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Runs it; gives the variables by which its commands find it."""
    folder.chmod(0o755)
    for parent in list(folder.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o111)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(configuration(folder, cpus))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    variables = {"SLURM_CONF": str(conf), "PATH": PATH}
    munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("key-file", "log-file", "pid-file")]
    munge += [f"--socket={folder}/munge.socket", f"--seed-file={folder}/munge.seed", "--foreground", "--force"]
    daemons = [["munged", *munge], ["slurmctld", "-D", "-i", "-f", str(conf)], ["slurmd", "-D", "-c", "-f", str(conf)]]
    started = []
    try:
        for command in daemons:
            with (folder / f"{command[0]}.out").open("wb") as out:
                environment = {**os.environ, **variables}
                started.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT))
            time.sleep(0.5)
        _wait_until_idle(variables, folder)
        yield variables
    finally:
        with suppress(subprocess.SubprocessError, OSError, AssertionError):
            subprocess.run(["scancel", "--user=root"], env={**os.environ, **variables}, timeout=10, check=False)
            _wait_until_idle(variables, folder, 15)
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_idle(variables: dict[str, str], folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    said = ""
    while time.monotonic() < end:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env={**os.environ, **variables},
            capture_output=True,
            encoding="utf-8",
            timeout=30,
        )
        said = done.stdout.strip() + done.stderr.strip()
        if said == "idle":
            return
        time.sleep(0.3)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
    raise AssertionError(f"SLURM does not start: {said}\n{logs}")
