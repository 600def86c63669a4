"""Where a command runs: a process of this machine, or a job of SLURM through submitit. No torch."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
PATIENCE_S = 60.0  # for a command without its runner to leave a checkpoint


class Job(Protocol):
    """A command under way."""

    name: str

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""

    def stop(self, hard: bool) -> None:
        """Ask it to end as Ctrl-C does, or end it at once."""


class Launcher(Protocol):
    """What starts commands; elsewhere: whether machines and GPUs are found elsewhere than on this one."""

    elsewhere: bool

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str], gpus: int) -> Job:
        """Start a command whose output is added to `log`; environment: what is set besides this process's own."""

    def end(self, name: str, told: Callable[[], bool]) -> None:
        """See that a command of that name, which an earlier runner left behind, is over; return early when told."""


class LocalJob:
    """A process with a group of its own, so that it and all it starts can be told to stop."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        parent = os.getpid()

        def prepare() -> None:
            # a shell's background job ignores SIGINT and hands that on: then nobody could stop the command gently
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            # where the runner is killed, its commands leave a checkpoint and end, instead of running on unseen
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(143)

        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 -- three system calls; the runner starts no thread
            )
        self.name = str(self._process.pid)

    def poll(self) -> int | None:
        status = self._process.poll()
        if status:  # the others of a group whose first process died would hold on to its GPUs
            self.stop(hard=True)
        return status

    def stop(self, hard: bool) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL if hard else signal.SIGINT)
        except ProcessLookupError:
            return


class Local:
    """Processes of this machine."""

    elsewhere = False

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str], gpus: int) -> Job:
        return LocalJob(command, log, environment)

    def end(self, name: str, told: Callable[[], bool]) -> None:
        """Wait a minute for its checkpoint, then end it."""
        until = time.monotonic() + PATIENCE_S
        while name.isdigit() and _is_ours(int(name)) and not told():
            if time.monotonic() > until:
                os.killpg(int(name), signal.SIGKILL)
            time.sleep(0.1)


def _is_ours(process: int) -> bool:
    """Whether a process is a `lightning` command that still runs."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return b"cli" in command and state != "Z"


def run_logged(command: Sequence[str], log: str, environment: Mapping[str, str], folder: str) -> int:
    """Run a command in `folder` with its output added to a log; its exit status."""
    with open(log, "ab") as stream:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, cwd=folder,
            env={**os.environ, **environment}, check=False,
        )  # fmt: skip
    return done.returncode


class SlurmJob:
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self._job, self.name = job, f"job {job.job_id}"

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        failure = self._job.exception()
        return int(self._job.result()) if failure is None else 1

    def stop(self, hard: bool) -> None:
        self._job.cancel()


class Slurm:
    """Jobs of SLURM through submitit; `options` as its AutoExecutor takes them, such as slurm_partition, timeout_min.

    Logs and run folders must lie on a file system that all nodes share. cluster: submitit's own, "slurm", or "local"
    to try it on one machine. Raises ValueError where submitit is not installed.
    """

    elsewhere = True

    def __init__(self, folder: Path, options: Mapping[str, Any], cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError as error:
            raise ValueError("--launcher slurm needs submitit: pip install 'vigil-vad[slurm]'") from error
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        self._options = {"timeout_min": 24 * 60, "name": "vigil", **options}

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str], gpus: int) -> Job:
        self._executor.update_parameters(gpus_per_node=gpus, **self._options)
        job = self._executor.submit(run_logged, list(command), str(log.resolve()), dict(environment), os.getcwd())
        return SlurmJob(job)

    def end(self, name: str, told: Callable[[], bool]) -> None:
        """Cancel it: SLURM's jobs outlive the runner that submitted them."""
        number = name.removeprefix("job ")
        if number.isdigit() and shutil.which("scancel"):
            subprocess.run(["scancel", "--full", number], check=False, capture_output=True)
