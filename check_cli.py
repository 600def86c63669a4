"""`lightning check`: the doctor for a dataset's folder, from the same config that a fit takes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from datamodules.video_data import VideoDataModule
from lightning_cli import Parser
from vigil.doctor import KINDS, Facts, Finding, annotation_fault, as_json, examine, printable
from vigil.types import Video

IGNORED = (  # a fit's other keys
    *("model", "trainer", "seed_everything", "runs", "save_every", "leaks", "store_only", "ckpt_path", "weights_only"),
)
SHOWN = 20  # findings of one kind on the screen; the JSON holds all


def check(args: list[str]) -> None:
    """Look at every file of a dataset; SystemExit with status 1 where anything is wrong, 130 at Ctrl-C."""
    try:
        _check(args)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. What was read is remembered: the same command goes on from there.\n")
        raise SystemExit(130) from None


def _check(args: list[str]) -> None:
    parser = Parser(prog="lightning check", description="What is missing, damaged, doubled or leaking in a dataset.")
    parser.add_argument("-c", "--config", action="config", help="A data config; a whole one will do.")
    parser.add_subclass_arguments(VideoDataModule, "data", required=True)
    parser.add_argument("--test_on", type=str, nargs="+", default=[], help="Configs of datasets to be tested on.")
    parser.add_argument("--quick", action="store_true", help="Read packets only, decode nothing.")
    parser.add_argument("--workers", type=int | None, default=None, help="Processes; as many as cores by default.")
    parser.add_argument("--json", type=str | None, default=None, help="Where to write all findings as JSON.")
    for key in IGNORED:
        parser.add_argument(f"--{key}", type=Any, default=None, help="Not used here.")
    given = parser.parse_args(args)
    if given.json:  # a folder that cannot be written to is to be known before the work, not after
        Path(given.json).parent.mkdir(parents=True, exist_ok=True)
        Path(given.json).open("a").close()
    data: VideoDataModule = parser.instantiate_classes(given).data
    data.prepare_data()
    elsewhere, findings = {}, []
    for file in given.test_on:
        other = _tested(file)
        found, faults = located(other, ["test"])
        elsewhere |= {f"{type(other).__name__} {split} ({file})": videos for split, videos in found.items()}
        findings += faults
    console = Console(highlight=False)
    found, facts, n_samples = _examined(data, elsewhere, given.quick, given.workers, console)
    findings = sorted(findings + found, key=lambda finding: list(KINDS).index(finding.kind))
    if given.json:
        Path(given.json).write_text(as_json(findings, facts))
    for paragraph in paragraphs(findings):
        console.print(paragraph, soft_wrap=not console.is_terminal)
    if findings:
        console.print(counts(findings))
    told = f"{type(data).__name__}: {_looked_at(facts, n_samples)}: "
    told += f"{len(findings)} finding{'s' * (len(findings) > 1)}." if findings else "nothing wrong."
    told += f"\nAll of it: {given.json}" if given.json else ""
    console.print(Text(told), soft_wrap=not console.is_terminal)
    if findings:
        raise SystemExit(1)


def _examined(
    data: VideoDataModule, elsewhere: dict[str, list[Video]], quick: bool, workers: int | None, console: Console
) -> tuple[list[Finding], Facts, int]:
    """All that is wrong with a dataset, what was looked at, and how many samples its own check went through."""
    splits, findings = located(data, data.splits)
    named = {name for videos in splits.values() for video in videos for name in (video.category or "").split("+")}
    n_samples = 0
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("reading", total=None)

        def progress(done: int, of: int, name: str) -> None:
            bar.update(task, completed=done, total=of, description=printable(name)[-40:].ljust(40))

        def count(done: int, of: int, name: str) -> None:
            nonlocal n_samples
            n_samples = of
            progress(done, of, name)

        found, facts = examine(
            splits,
            elsewhere,
            categories=data.categories if named & set(data.categories) else (),  # else nobody says which class it is
            crops=data.crops,
            decode=not quick,
            n_workers=workers,
            memory=data.memory,
            progress=progress,
        )
        findings += found
        try:
            findings += [annotation_fault(ValueError(text)) for text in data.faults(not quick, count)]
        except (ValueError, OSError) as error:
            findings.append(annotation_fault(error))
    return findings, facts, n_samples


def paragraphs(findings: Iterable[Finding]) -> list[Text]:
    """The findings kind by kind, up to 20 of each, and what to do; nothing in them can move the cursor or colour it."""
    told = []
    for kind, same in groupby(findings, key=lambda finding: finding.kind):
        rows = list(same)
        text = Text(f"{kind} ({len(rows)}): {KINDS[kind]}\n", style="bold")
        for todo, alike in groupby(rows[:SHOWN], key=lambda finding: finding.todo):
            for row in alike:
                where = ", ".join(filter(None, (row.split, row.other_split, row.video)))
                text.append(f"  {printable(f'{where}: {row.found}' if where else row.found)}\n", style="not bold")
            text.append(f"  -> {printable(todo)}\n", style="not bold")
        if len(rows) > SHOWN:
            text.append(f"  and {len(rows) - SHOWN} more; --json FILE writes all of them\n", style="not bold")
        told.append(text)
    return told


def counts(findings: Iterable[Finding]) -> Table:
    """How many findings of each kind there are in each split."""
    count = Counter((finding.kind, finding.split) for finding in findings)
    splits = list(dict.fromkeys(split for _, split in count))
    shown = Table("fault", *(escape(printable(split or "-")) for split in splits))
    for kind in dict.fromkeys(kind for kind, _ in count):
        shown.add_row(kind, *(str(count[kind, split] or "") for split in splits))
    return shown


def located(data: VideoDataModule, splits: list[str] | tuple[str, ...]) -> tuple[dict[str, list[Video]], list[Finding]]:
    """The videos that each split names, with their files; what kept a split from being read."""
    found, faults = {}, []
    for split in splits:
        try:
            found[split] = data.located(split)
        except (ValueError, OSError) as error:
            faults.append(annotation_fault(error, split))
    return found, faults


def _looked_at(facts: Facts, n_samples: int) -> str:
    how = f"{'decoded' if facts.decoded else 'packets read'} in {facts.took_s:.0f} s"
    if n_samples and not facts.videos:
        return f"{n_samples} samples looked at, {'decoded' if facts.decoded else 'their masks alone'}"
    there, named = sum(facts.files.values()), sum(facts.videos.values())
    return f"{there} of {named} videos there, {facts.frames} frames, {facts.hours:.1f} hours, {how}"


def _tested(file: str) -> VideoDataModule:
    """The dataset of another data config."""
    expected = "a data config such as configs/data/ucf_crime.yaml is expected"
    if not Path(file).is_file():
        raise FileNotFoundError(f"--test_on {file}: no such config; {expected}")
    parser = Parser(prog="lightning check --test_on")
    parser.add_subclass_arguments(VideoDataModule, "data", required=True)
    config = yaml.safe_load(Path(file).read_text())
    if not isinstance(config, dict) or "data" not in config:
        raise ValueError(f"--test_on {file}: no data: in it; {expected}")
    data: VideoDataModule = parser.instantiate_classes(parser.parse_object({"data": config["data"]})).data
    if "test" not in data.splits:
        raise ValueError(f"--test_on {file}: {type(data).__name__} has no test split; {expected}")
    data.prepare_data()
    return data
