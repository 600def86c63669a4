"""Plain pickles of every protocol are read; whatever else a pickle may hold is refused before it acts."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vigil.safe_pickle import load_plain

REFS: list[dict[str, Any]] = [
    {
        "ref_id": 1, "ann_id": 2**40, "split": "train", "file_name": "COCO_train2014_000000000009_1.jpg",
        "sent_ids": [0, 1], "box": (1.5, -2, None, True), "kinds": {"a", "b"},
        "sentences": [{"sent": "lady in the café", "tokens": ["lady", "in", "the", "café"], "sent_id": 0}],
    }
] * 2  # fmt: skip


def test_plain_values_of_every_protocol_come_back(tmp_path: Path) -> None:
    file = tmp_path / "refs(unc).p"
    for protocol in range(2, 6):
        file.write_bytes(pickle.dumps(REFS, protocol=protocol))
        if protocol < 4:  # a set is a call of a class there
            with pytest.raises(ValueError, match=r"refers to (__builtin__|builtins)\.set"):
                load_plain(file)
            file.write_bytes(pickle.dumps([{**ref, "kinds": ["a"]} for ref in REFS], protocol=protocol))
            assert load_plain(file) == [{**ref, "kinds": ["a"]} for ref in REFS]
        else:
            assert load_plain(str(file)) == REFS
    for protocol in (0, 1):
        file.write_bytes(pickle.dumps([{**ref, "kinds": []} for ref in REFS], protocol=protocol))
        assert load_plain(file) == [{**ref, "kinds": []} for ref in REFS]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"(lp0\n(dp1\nS'sent'\np2\nS'a red car'\np3\nsS'ref_id'\np4\nL7L\nsa.", "a red car"),  # Python 2, protocol 0
        (b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x09a red carq\x03U\x06ref_idq\x04K\x07ua.", "a red car"),  # protocol 2
        (b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xc3\\xa9'\np3\nsS'ref_id'\np4\nI7\nsa.", "café"),  # UTF-8 bytes
        (b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x04caf\xe9q\x03U\x06ref_idq\x04K\x07ua.", "café"),  # Latin-1 bytes
    ],
)
def test_byte_strings_of_python_2_are_text(tmp_path: Path, data: bytes, text: str) -> None:
    file = tmp_path / "refs(google).p"
    file.write_bytes(data)
    assert load_plain(file) == [{"sent": text, "ref_id": 7}]


class Runs:
    """What an attacker pickles."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    file, trace = tmp_path / "refs(unc).p", tmp_path / "trace"
    file.write_bytes(pickle.dumps([REFS[0]["sentences"], Runs(f"touch '{trace}'")], protocol=protocol))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p: refers to (posix|nt)\.system.*only plain") as refused:
        load_plain(file)
    assert str(file) in str(refused.value)
    assert not trace.exists()


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(3), OrderedDict(a=1), Path("x"), print, ValueError("x")])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_whatever_needs_a_class_is_refused(tmp_path: Path, value: object, protocol: int) -> None:
    file = tmp_path / "refs.p"
    file.write_bytes(pickle.dumps({"value": value}, protocol=protocol))
    with pytest.raises(ValueError, match=r"refs\.p: refers to \w+"):
        load_plain(file)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not a pickle", b"\x80\x02]q\x00", b"\x80\x63.", b".", b"0.", b"(lp0\nS'a\n.", b"\x82\x01.", b"Pid\n.",
        b"}b.", b"\x80\x04h\x07.", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        pickle.dumps(REFS, 4)[:-40],
    ],
)  # fmt: skip
def test_a_damaged_pickle_ends_in_one_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "refs.p"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"refs\.p: not a whole pickle"):
        load_plain(file)


def test_a_file_of_too_many_bytes_is_not_even_read(tmp_path: Path) -> None:
    file = tmp_path / "refs.p"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: nothing could hold it
    with pytest.raises(ValueError, match=rf"{1 << 40} bytes, at most {1 << 28}"):
        load_plain(file)
    file.write_bytes(pickle.dumps([1] * 100))
    with pytest.raises(ValueError, match="at most 10"):
        load_plain(file, max_bytes=10)
    with pytest.raises(FileNotFoundError, match="expected a pickle of plain values"):
        load_plain(tmp_path / "none.p")


def test_a_file_of_many_references_comes_back_equal(tmp_path: Path) -> None:
    words = [f"word {k % 50}" for k in range(5000)]
    value = {"refs": [{"sent": word, "again": words[:3]} for word in words]}
    file = tmp_path / "refs.p"
    file.write_bytes(pickle.dumps(value, protocol=2))
    assert load_plain(file) == value
