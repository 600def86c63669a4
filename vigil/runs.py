"""Run folders: one per configuration, so that nothing is ever continued or overwritten by accident."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that change with any value of the configuration (JSON-able, order does not matter)."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:8]


class RunFolder:
    """Where one fit keeps what it makes: config.yaml, checkpoints, logs, and `state.json` saying how far it got.

    root/<name>/<hash>: the unfinished run of this configuration if there is one, else a new folder (<hash>-2, …).
    """

    def __init__(self, root: Path, name: str, config: Mapping[str, Any]) -> None:
        digest = config_hash(config)
        folder, count = root / name / digest, 1
        while _state(folder) == "finished":
            count += 1
            folder = root / name / f"{digest}-{count}"
        self.folder = folder
        self.checkpoint = folder / "checkpoints" / "last.ckpt"
        self._lock: int | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a checkpoint to go on from is here."""
        return self.checkpoint.is_file()

    def claim(self) -> None:
        """Make the folder this process's own until it ends. Raises ValueError where another one is at work in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it even after kill -9
        except OSError as error:
            raise ValueError(
                f"{self.folder}: another process is fitting this very configuration; wait for it, or change a value"
            ) from error
        if _state(self.folder) == "finished":  # between __init__ and here
            raise ValueError(f"{self.folder}: another process has just finished this very configuration; run again")
        self.write_state("running")

    def write_state(self, state: str) -> None:
        """Say how far the run is: running or finished."""
        part = self.folder / "state.json.part"
        part.write_text(json.dumps({"state": state}) + "\n")
        part.replace(self.folder / "state.json")


def _state(folder: Path) -> str | None:
    file = folder / "state.json"
    if not file.is_file():
        return None
    try:
        state: str = json.loads(file.read_text())["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a run's state; delete {folder} to start again") from error
    return state


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, or None for a checkpoint from elsewhere."""
    folder = checkpoint.resolve().parent.parent
    return folder if (folder / "state.json").is_file() else None
