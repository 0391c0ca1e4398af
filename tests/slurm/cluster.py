"""A whole Slurm on this host: a controller and several nodes, each a `slurmd`, in a folder of its own.

It needs Debian's packages slurmctld, slurmd, slurm-client and munge, and to be root (munge and slurmd want to own what
they start). Nothing outside of `folder` is written, and all ports are free ones of the loopback interface.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "srun", "scancel", "scontrol")
SEARCHED = "/usr/sbin:/sbin:/usr/local/sbin"
READY_WITHIN_S = 60.0


def missing() -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:{SEARCHED}") is None]


@dataclass
class Cluster:
    """A controller and nodes n1 to n<nodes>; use it as a context.

    Args:
        folder: for configuration, state, sockets and logs; its path must be short enough for a socket (107 bytes).
        nodes: how many.
        cpus: of each node, as Slurm counts them; this host's cores are shared.
    """

    folder: Path
    nodes: int = 3
    cpus: int = 2
    _started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(f"n{number + 1}" for number in range(self.nodes))

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to speak to this cluster and no other."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}:{SEARCHED}"
        return {**inherited, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def __enter__(self) -> Cluster:
        for name in ("state", *(f"spool/{node}" for node in self.names)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_key()
        self._write_prolog()
        self._write_srun()
        controller, *ports = _free_ports(1 + self.nodes)
        (self.folder / "slurm.conf").write_text(self._configuration(controller, ports))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        try:
            self._start("munged", *self._munge_flags())
            self._start("slurmctld", "-D", "-i")
            for node in self.names:
                self.start_node(node)
            self.wait_until_idle()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def run(self, *command: str, timeout_s: float = 60, **settings: Mapping[str, str]) -> str:
        """Run one of Slurm's commands and return what it printed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False, **settings
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start("slurmd", "-D", "-N", node, called=node)

    def kill_node(self, node: str) -> None:
        """End a node as a power cut does: its daemon, and every process that it has started."""
        daemon = self._started.pop(node)
        victims = [daemon.pid, *_descendants(daemon.pid), *self._steps_of(node)]
        for process in victims:
            for each in (process, *_descendants(process)):
                _kill(each)
        daemon.wait()

    def _steps_of(self, node: str) -> list[int]:
        """Return the processes of a node's jobs, and the daemons of its steps, which are children of init."""
        wanted = {f"SLURM_CONF={self.folder / 'slurm.conf'}".encode(), f"SLURMD_NODENAME={node}".encode()}
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
        return found

    def _start(self, program: str, *flags: str, called: str | None = None) -> None:
        name = called or program
        path = shutil.which(program, path=self.environment["PATH"])
        assert path, f"{program} is not installed"
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                [path, *flags], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def _stop(self) -> None:
        for node in self.names:
            if node in self._started:
                self.kill_node(node)
        for process in self._started.values():
            process.send_signal(signal.SIGTERM)
        for process in self._started.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._started.clear()

    def _write_key(self) -> None:
        key = self.folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o400)
            key.write_bytes(secrets.token_bytes(1024))

    def _write_prolog(self) -> None:
        """Give each node a temporary folder of its own, as nodes have."""
        prolog = self.folder / "prolog.sh"
        prolog.write_text(
            f"#!/bin/sh\nmkdir -p {self.folder}/scratch/$SLURMD_NODENAME\n"
            f"echo export TMPDIR={self.folder}/scratch/$SLURMD_NODENAME\n"
        )
        prolog.chmod(0o755)

    def _write_srun(self) -> None:
        """Write an `srun` that finds this cluster; Snakemake's job step drops SLURM_CONF from the environment."""
        program = self.folder / "bin" / "srun"
        program.parent.mkdir(exist_ok=True)
        true = shutil.which("srun", path=f"{os.environ['PATH']}:{SEARCHED}")
        program.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder / "slurm.conf"} exec {true} "$@"\n')
        program.chmod(0o755)

    def _munge_flags(self) -> tuple[str, ...]:
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        flags = (f"--{flag}={self.folder / f'munge.{ending}'}" for flag, ending in files.items())
        return ("--foreground", "--force", *flags)

    def wait_until_idle(self) -> None:
        """Wait until every node is up and has nothing to do.

        Raises:
            TimeoutError: that takes longer than a minute.
        """
        end = time.monotonic() + READY_WITHIN_S
        seen = ""
        while time.monotonic() < end:
            done = subprocess.run(
                ["sinfo", "--noheader", "--Node", "--format=%T"],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            seen = done.stdout + done.stderr
            if done.stdout.split() == ["idle"] * self.nodes:
                return
            time.sleep(0.2)
        logs = "".join(f"\n{file.name}: {file.read_text()[-500:]}" for file in sorted(self.folder.glob("*.log")))
        raise TimeoutError(f"the nodes are not ready within {READY_WITHIN_S:g} s: {seen}{logs}")

    def _configuration(self, controller: int, ports: list[int]) -> str:
        user = "root" if os.getuid() == 0 else os.environ["USER"]
        nodes = "".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} RealMemory=4000\n"
            for name, port in zip(self.names, ports, strict=True)
        )
        return f"""ClusterName=stepbench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge.socket
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/%n.pid
SlurmdSpoolDir={self.folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
TaskProlog={self.folder}/prolog.sh
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SchedulerType=sched/backfill
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=2
MinJobAge=600
ReturnToService=2
UnkillableStepTimeout=30
{nodes}PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=EXCLUSIVE
"""


def _free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _descendants(process: int) -> list[int]:
    found = []
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    for child in map(int, children):
        found += [child, *_descendants(child)]
    return found


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
