"""The command: `lightning` or `vigil`, fit | validate | test | predict over LightningCLI, check and store."""

from __future__ import annotations

import difflib
import os
import sys

HELP = """\
usage: lightning COMMAND -c CONFIG [-c CONFIG ...] [--key value ...]

Trains, evaluates and ranks video anomaly detectors. `vigil` is the same command under another name.

commands:
  fit        train a system; the same command again goes on with an unfinished run
  validate   score the validation split, cut from the training videos
  test       score the test split: metrics, scores.csv, curves
  predict    score videos without judging them
  check      look at a dataset's files: what is missing, damaged, doubled, or in fitting and testing both
  store      what a frozen backbone said of videos, kept on disk: `store du` lists it, `store prune` makes room

configs: one of each layer, in any order, or a file complete in itself
  configs/systems/*.yaml    what is trained and how
  configs/data/*.yaml       on what
  configs/machines/*.yaml   where
  configs/demo.yaml         all three, on a rendered world

first steps:
  lightning fit -c configs/demo.yaml
  lightning test -c configs/demo.yaml --ckpt_path runs/.../last.ckpt
  lightning check -c configs/demo.yaml

readings of a frozen backbone, before fitting and over several GPUs:
  lightning fit -c CONFIG ... --store_only true --trainer.devices 4

more: `lightning fit --help` lists every key; `lightning fit -c ... --print_config` prints what would run.
A traceback for every error: VIGIL_TRACEBACK=1.
"""
COMMANDS = ("fit", "validate", "test", "predict", "check", "store")


def main(args: list[str] | None = None) -> None:
    """Run the command `args` (the process's own by default). Raises SystemExit with the status; returns on success."""
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"vigil {version('vigil-vad')}")
        return
    if args[0] not in COMMANDS and not args[0].startswith("-"):
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        sys.stderr.write(f"error: {args[0]!r} is none of the commands {', '.join(COMMANDS)}{meant}\n")
        raise SystemExit(2)
    try:
        _run(args)
    except KeyboardInterrupt:  # while everything is being imported
        raise SystemExit(130) from None


def _run(args: list[str]) -> None:
    if args[0] == "store":
        from store_cli import store

        store(args[1:])
        return
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a dataset or a system of one's own lies; last, so that it hides nothing
    from lightning_cli import report, run  # everything heavy waits until it is needed: --help answers at once

    if args[0] == "check":
        from check_cli import check

        report(check, args[1:])
    else:
        run(args)


if __name__ == "__main__":
    main()
