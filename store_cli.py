"""`lightning store`: what the readings on disk are and how much room they take, and making room."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import json
import re
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from vigil.reading_file import ReadingFile, remove_stale
from vigil.store import folder_name, keep_tensors, reading_files, readings_root, without_stretch

OURS = ("view", "precision", "pixels", "stream")  # what System adds to the key; the rest is the backbone's
SHOWN = 10
ID = re.compile(r"[0-9a-f]{16}")  # vigil.store.folder_name


class Parser(argparse.ArgumentParser):
    """Says in a line or two what is wrong and what comes nearest; no page of usage before it."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {message}\n")
        names = {"du", "prune", "--json", "--older_than_days", "--damaged", "--keep", "--all", "--yes"}
        for word in re.findall(r"invalid choice: '([^']*)'|(--\w+)", message):
            near = difflib.get_close_matches("".join(word), names - {"".join(word)}, n=1)
            if near and "".join(word) not in names:
                sys.stderr.write(f"'{''.join(word)}' is not known here; did you mean '{near[0]}'?\n")
        raise SystemExit(2)


@dataclass
class Facts:
    """What a store's folder holds: of each tensor the number of videos that have it; damaged files are not looked into.

    backbone, view, precision: out of its store.json, in words.
    """

    id: str
    made_by: str
    backbone: str
    view: str
    precision: str
    videos: int = 0
    damaged: int = 0
    bytes: int = 0
    last_written: float = 0
    tensors: dict[str, int] = field(default_factory=dict)


def store(args: list[str]) -> None:
    """Run `lightning store` with `args`; an error of the user's making is a line on standard error, status 1 or 2."""
    parser = Parser(
        prog="lightning store", description="Readings of frozen backbones, kept on disk.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    du = commands.add_parser("du", help="What is there and how much room it takes.", allow_abbrev=False)
    du.add_argument("--json", action="store_true", help="As JSON.")
    prune = commands.add_parser("prune", help="Make room. Without --yes it says what would go.", allow_abbrev=False)
    prune.add_argument("ids", nargs="*", metavar="ID", help="Stores, as `lightning store du` names them; all else.")
    prune.add_argument("--older_than_days", type=float, help="Only stores that were last written so long ago.")
    prune.add_argument("--damaged", action="store_true", help="Only files that are not whole; reads every byte.")
    prune.add_argument("--keep", nargs="+", metavar="NAME", help="Only tensors other than these, of the stores named.")
    prune.add_argument("--all", action="store_true", help="Every store.")
    prune.add_argument("--yes", action="store_true", help="Do it.")
    given = parser.parse_args(args)
    try:
        if given.command == "du":
            _du(given.json)
        else:
            _prune(given)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def facts(folder: Path) -> Facts:
    """What a store's folder holds, from its store.json and the headers of its files, less what goes meanwhile."""
    try:
        about = json.loads((folder / "store.json").read_text())
        key, made_by = dict(about["key"]), str(about["made_by"])
    except (OSError, ValueError, KeyError, TypeError):
        found = Facts(folder.name, "?", "its store.json is not there or damaged", "?", "?")
    else:
        backbone = ", ".join(f"{name}: {_short(value)}" for name, value in key.items() if name not in OURS)
        view = _words(key.get("view")) + (f", {key['stream']}" if key.get("stream", "video") != "video" else "")
        found = Facts(folder.name, *map(_plain, (made_by, backbone, view, str(key.get("precision", "?")))))
    tensors: Counter[str] = Counter()
    readings = set(reading_files(folder))
    for path in sorted({*readings, *folder.glob("*.part"), folder / "store.json"}):
        try:
            status = path.lstat()
            if path in readings:
                with ReadingFile(path) as file:
                    tensors.update({without_stretch(name) for name in file.entries})
        except FileNotFoundError:
            continue
        except ValueError:
            found.damaged += 1
        found.bytes += status.st_size
        if path in readings:
            found.videos += 1
            found.last_written = max(found.last_written, status.st_mtime)
    found.tensors = {name: tensors[name] for name in sorted(tensors, key=_natural)}
    return found


def _du(as_json: bool) -> None:
    root = readings_root()
    stores = [facts(folder) for folder in _folders(root)]
    if as_json:
        rows = [{**asdict(one), "last_written": _when(one.last_written)} for one in stores]
        print(json.dumps({"root": str(root), "stores": rows, "bytes": sum(one.bytes for one in stores)}, indent=1))
        return
    if not stores:
        print(f"No readings in {root}.")
        return
    table = Table(Column("store", no_wrap=True), "what", "tensors", "videos", "size", "last written")
    for one in sorted(stores, key=lambda one: -one.bytes):
        what = f"{one.made_by}\n{one.backbone}\n{one.view}, {one.precision}"
        videos = f"{one.videos}" + (f", {one.damaged} damaged" if one.damaged else "")
        cells = (one.id, what, _plain(_ranges(one.tensors, one.videos)), videos, decimal(one.bytes))
        table.add_row(*map(Text, (*cells, _when(one.last_written) or "-")))
    console = Console()
    console.print(table)
    console.print(f"{decimal(sum(one.bytes for one in stores))} in {root}", soft_wrap=True, markup=False)


def _prune(given: argparse.Namespace) -> None:
    if not (given.ids or given.all or given.damaged or given.older_than_days is not None):
        raise ValueError("say what goes: IDs as `lightning store du` names them, --older_than_days, --damaged or --all")
    if given.damaged and given.keep:
        raise ValueError("--damaged and --keep are two things; give one of them")
    if given.ids and given.all:
        raise ValueError("--all is every store; give either IDs or --all")
    if given.keep and not given.ids:
        raise ValueError("--keep needs the ID of a store; `lightning store du` names them")
    chosen = _chosen(given.ids)
    if given.older_than_days is not None:
        if not given.older_than_days >= 0:
            raise ValueError(f"--older_than_days {given.older_than_days:g}: at least 0 is expected")
        before = time.time() - 86400 * given.older_than_days
        chosen = [folder for folder in chosen if facts(folder).last_written < before]
    freed, what = 0, "gone" if given.yes else "would go"
    for folder in chosen:
        if given.damaged:
            n_bytes = _remove_damaged(folder, given.yes)
        elif given.keep:
            n_bytes = _keep(folder, given.keep, given.yes)
        else:
            n_bytes = facts(folder).bytes
            print(f"{folder.name}: {what}, {facts(folder).videos} videos, {decimal(n_bytes)}")
            if given.yes:
                _remove(folder)
        freed += n_bytes
        if given.yes and folder.is_dir():
            freed += remove_stale(folder)
    print(f"{decimal(freed)} {what}{'' if given.yes or not freed else '; add --yes to do it'}.")


def _chosen(ids: list[str]) -> list[Path]:
    """The folders of the stores called so, by the first characters of an ID as well; all where none is called."""
    folders = {folder.name: folder for folder in _folders(readings_root())}
    found = {}
    for name in ids:
        if not name:
            raise ValueError("an ID is empty; `lightning store du` names those that are there, --all is every store")
        meant = [id_ for id_ in folders if id_.startswith(name)]
        if len(meant) != 1:
            begins = {id_[: len(name)]: id_ for id_ in folders}
            near = difflib.get_close_matches(name, begins, n=1)
            hint = f"did you mean {begins[near[0]]}?" if near else "`lightning store du` names those that are there"
            several = f"{len(meant)} stores begin so: {', '.join(meant[:SHOWN])}"
            raise ValueError(f"{name}: {several if meant else f'no such store in {readings_root()}; {hint}'}")
        found[meant[0]] = folders[meant[0]]
    return list((found if ids else folders).values())


def _remove_damaged(folder: Path, really: bool) -> int:
    """Bytes of the files that are not whole, or not this store's own; every byte is read."""
    n_bytes = 0
    for path in reading_files(folder):
        try:
            with ReadingFile(path) as file:
                if (folder_name(file.key), file.video) != (folder.name, path.stem):
                    raise file.fault("it belongs to another store or video")
                for name in file.entries:
                    file.read(name)
        except FileNotFoundError:
            continue
        except ValueError as damage:
            print(str(damage).removesuffix("; delete the file"))
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                if really:
                    path.unlink()
                n_bytes += size
    return n_bytes


def _keep(folder: Path, names: list[str], really: bool) -> int:
    found = facts(folder)
    for name in names:
        if name not in found.tensors:
            near = difflib.get_close_matches(name, found.tensors, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {_ranges(found.tensors, found.videos)}"
            raise ValueError(f"{folder.name}: no video has a tensor {name}; {hint}")
    going = {name: n_videos for name, n_videos in found.tensors.items() if name not in names}
    if not going:
        print(f"{folder.name}: it holds nothing else")
        return 0
    n_bytes = keep_tensors(folder, names) if really else _bytes_of(folder, set(going))
    print(f"{folder.name}: {'gone' if really else 'would go'}, {_ranges(going, found.videos)}, {decimal(n_bytes)}")
    return n_bytes


def _bytes_of(folder: Path, names: set[str]) -> int:
    n_bytes = 0
    for path in reading_files(folder):
        try:
            with ReadingFile(path) as file:
                n_bytes += sum(
                    entry.end_byte - entry.first_byte
                    for name, entry in file.entries.items()
                    if without_stretch(name) in names
                )
        except (ValueError, FileNotFoundError):
            continue
    return n_bytes


def _remove(folder: Path) -> None:
    for path in [*reading_files(folder), folder / "store.json"]:
        path.unlink(missing_ok=True)
    remove_stale(folder)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        print(f"{folder}: what else lies there is left; another run may be writing into it")


def _folders(root: Path) -> list[Path]:
    """The stores below: folders that are called as stores are. A link may lead to what is no reading at all."""
    if not root.is_dir():
        return []
    return sorted(
        path for path in root.iterdir() if ID.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    )


def _ranges(tensors: dict[str, int], n_videos: int) -> str:
    """Names in few words: hidden.0-27, and of how many videos where not of all."""
    groups: dict[tuple[str, int], list[int]] = {}
    alone = []
    for name, count in tensors.items():
        stem, _, number = name.rpartition(".")
        if stem and number.isdecimal():
            groups.setdefault((stem, count), []).append(int(number))
        else:
            alone.append((name, count))
    for (stem, count), numbers in groups.items():
        first = last = numbers[0]
        for number in [*numbers[1:], None]:
            if number == last + 1:
                last = number
                continue
            alone.append((f"{stem}.{first}" + (f"-{last}" if last > first else ""), count))
            first = last = number if number is not None else 0
    return (
        ", ".join(name + (f" (of {count} of {n_videos} videos)" if count < n_videos else "") for name, count in alone)
        or "none"
    )


def _natural(name: str) -> list[Any]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _words(view: Any) -> str:
    if not isinstance(view, dict):
        return "?"
    if view.get("segments"):
        return f"{view['segments']} segments of {view.get('frames')} frames"
    return f"windows of {view.get('frames')} frames {view.get('stride')} apart, every {view.get('hop')}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(text: str) -> str:
    """Without what could move the cursor: a store.json may come from anywhere."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "minutes") if seconds else ""
