"""Reads a pickle that holds plain values, and refuses every other one before it can do anything."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn


class _PlainUnpickler(pickle.Unpickler):
    """Knows no global, so that nothing can be called: dict, list, tuple, set, numbers and strings are opcodes."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _ForeignError(f"{module}.{name}")


class _ForeignError(Exception):
    pass


def load_plain(path: str | Path, max_bytes: int = 1 << 28) -> Any:
    """The value in a pickle file, of any protocol up to 5: containers, numbers, strings and None, and nothing else.

    Byte strings of Python 2 come back as text: UTF-8 where all are, else Latin-1. Raises FileNotFoundError, or
    ValueError for a file that is larger than max_bytes, damaged, or refers to any class or function.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a pickle of plain values")
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path}: {size} bytes, at most {max_bytes} are read; is it the right file?")
    data = path.read_bytes()
    try:
        try:
            return _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
        except UnicodeDecodeError:
            return _PlainUnpickler(io.BytesIO(data), encoding="latin-1").load()
    except _ForeignError as error:
        raise ValueError(
            f"{path}: refers to {error}, which loading would run; only plain containers, numbers and strings are "
            "read. Take the file from the dataset's authors"
        ) from None
    except Exception as error:  # a damaged pickle fails in many ways, from EOFError to KeyError
        raise ValueError(f"{path}: not a whole pickle ({type(error).__name__}: {error}); fetch it again") from error
