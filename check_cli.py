"""`lightning check`: the doctor for a dataset's folder, from the same config that a fit takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.video_data import VideoDataModule
from lightning_cli import Parser
from vigil.doctor import Finding, annotation_fault, as_json, examine, table
from vigil.types import Video

IGNORED = ("model", "trainer", "seed_everything", "runs", "save_every", "leaks", "ckpt_path")  # a fit's other keys


def check(args: list[str]) -> None:
    """Look at every file of a dataset; SystemExit with status 1 where anything is wrong."""
    parser = Parser(prog="lightning check", description="What is missing, damaged, doubled or leaking in a dataset.")
    parser.add_argument("-c", "--config", action="config", help="A data config; a whole one will do.")
    parser.add_subclass_arguments(VideoDataModule, "data", required=True)
    parser.add_argument("--test_on", type=list[str], default=[], help="Configs of datasets that will be tested on.")
    parser.add_argument("--quick", action="store_true", help="Read packets only, decode nothing.")
    parser.add_argument("--workers", type=int | None, default=None, help="Processes; as many as cores by default.")
    parser.add_argument("--json", type=str | None, default=None, help="Where to write all findings as JSON.")
    for key in IGNORED:
        parser.add_argument(f"--{key}", type=Any, default=None, help="Not used here.")
    given = parser.parse_args(args)
    data = parser.instantiate_classes(given).data
    data.prepare_data()
    splits, findings = located(data, data.splits)
    elsewhere = {}
    for file in given.test_on:
        other = _tested(file)
        found, faults = located(other, [split for split in other.splits if split == "test"])
        elsewhere |= {f"{type(other).__name__} {split} ({file})": videos for split, videos in found.items()}
        findings += faults
    named = {name for videos in splits.values() for video in videos for name in (video.category or "").split("+")}
    console = Console()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("reading", total=None)

        def progress(done: int, of: int, name: str) -> None:
            bar.update(task, completed=done, total=of, description=name[-40:].ljust(40))

        found, facts = examine(
            splits,
            elsewhere,
            categories=data.categories if named & set(data.categories) else (),  # else nobody says which class it is
            crops=data.crops,
            decode=not given.quick,
            n_workers=given.workers,
            memory=data.memory,
            progress=progress,
        )
        findings += found + [annotation_fault(ValueError(text)) for text in data.faults(not given.quick, progress)]
    if given.json:
        Path(given.json).write_text(as_json(findings, facts))
    if findings:
        console.print(table(findings))
    there, named = sum(facts.files.values()), sum(facts.videos.values())
    console.print(
        f"{type(data).__name__}: {there} of {named} videos there, {facts.frames} frames, {facts.hours:.1f} hours, "
        f"{'decoded' if facts.decoded else 'packets read'} in {facts.took_s:.0f} s: "
        f"{f'{len(findings)} findings' if findings else 'nothing wrong'}.",
        soft_wrap=True,
    )
    if given.json:
        console.print(f"All of it: {given.json}", soft_wrap=True)
    if findings:
        raise SystemExit(1)


def located(data: VideoDataModule, splits: list[str] | tuple[str, ...]) -> tuple[dict[str, list[Video]], list[Finding]]:
    """The videos that each split names, with their files; what kept a split from being read."""
    found, faults = {}, []
    for split in splits:
        try:
            found[split] = data.located(split)
        except (ValueError, OSError) as error:
            faults.append(annotation_fault(error, split))
    return found, faults


def _tested(file: str) -> VideoDataModule:
    """The dataset of another data config."""
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"--test_on {file}: no such config; a file such as configs/data/ucf_crime.yaml is expected"
        )
    parser = Parser(prog="lightning check --test_on")
    parser.add_subclass_arguments(VideoDataModule, "data", required=True)
    config = yaml.safe_load(Path(file).read_text())
    if not isinstance(config, dict) or "data" not in config:
        raise ValueError(
            f"--test_on {file}: no data: in it; a data config such as configs/data/ucf_crime.yaml is expected"
        )
    data: VideoDataModule = parser.instantiate_classes(parser.parse_object({"data": config["data"]})).data
    return data
