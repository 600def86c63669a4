"""VigilCli: LightningCLI with run folders, resuming, and errors that name the key."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

import datamodules
import lightning_modules
from callbacks.caption_writer import CaptionWriter
from callbacks.checkpointing import AtomicCheckpointIO, LastCheckpoint
from callbacks.evaluator import Evaluator
from callbacks.explainer import Explainer
from callbacks.leak_guard import LeakGuard
from callbacks.live_writer import LiveWriter
from callbacks.mask_picture import MaskPicture
from callbacks.progress import Cost, Progress, Throughput
from callbacks.score_writer import ScoreWriter
from datamodules.video_data import VideoDataModule
from lightning_modules.filling import say_what_is_kept
from lightning_modules.system import System
from vigil.runs import RunFolder, config_hash, run_of

EXIT_CONFIG = 2  # argparse's
RUNS = "runs"  # where run folders are made, unless --runs says otherwise


class Parser(LightningArgumentParser):
    """Says in one line which key is wrong and which valid one comes nearest; no page of usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # --trainer.max_epoch is a typo, not max_epochs

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if os.environ.get("VIGIL_TRACEBACK"):
            raise ValueError(message) from ex
        sys.stderr.write(f"error: {message.strip()}\n")
        said, _, choices = message.partition("(choose from")
        for name, near in nearest(said, set(re.findall(r"[\w-]+", choices)) or self._keys()).items():
            sys.stderr.write(f"'{name}' is not a key here; did you mean '{near}'?\n")
        if "are required" in message:
            sys.stderr.write("A system and data come from configs; `lightning --help` shows a first command.\n")
        raise SystemExit(EXIT_CONFIG)

    def _keys(self) -> set[str]:
        parsers = [self, *(sub for action in self._actions for sub in getattr(action, "_name_parser_map", {}).values())]
        keys = {part for parser in parsers for action in parser._actions for part in str(action.dest).split(".")}
        for module in (lightning_modules, datamodules):
            for name, kind in vars(module).items():
                if inspect.isclass(kind):
                    keys |= {name, *inspect.signature(kind).parameters}
        return keys | {"class_path", "init_args", "frames", "stride", "hop", "segments"}


def nearest(message: str, keys: set[str]) -> dict[str, str]:
    """{a word of the message that is no key: the valid key nearest to it}."""
    message = re.sub(r"<class '[^']*'>", "", message)
    quoted = set(re.findall(r"""['"`-]{1,2}([A-Za-z_][\w.+]*)""", message))
    quoted |= set(re.findall(r"(?:path string|Given value): ([A-Za-z_][\w.]*)", message))
    found = {}
    for name in sorted({part.rstrip("+") for word in quoted for part in word.split(".")} - keys):
        match = difflib.get_close_matches(name, keys, n=1, cutoff=0.6)
        if match:
            found[name] = match[0]
    return found


class VigilCli(LightningCLI):
    """One system on one dataset; `lightning_cli.run` is the way in."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--runs", type=str, default=RUNS, help="Folder that run folders are made in.")
        parser.add_argument(
            "--save_every", type=int, default=200, help="Training steps from one checkpoint to the next."
        )
        parser.add_argument(
            "--leaks", type=Literal["refuse", "record"], default="refuse", help="A test on videos seen in fitting."
        )
        parser.add_argument(
            "--store_only", type=bool, default=False, help="Have the readings of a frozen backbone on disk, and stop."
        )
        parser.set_defaults({"trainer.use_distributed_sampler": False, "trainer.num_sanity_val_steps": 0})

    def _parse_ckpt_path(self) -> None:
        """Keep what the user gave: the base class would let the checkpoint's hyper-parameters overrule it."""

    def instantiate_classes(self) -> None:
        self._dump_config()
        if self.subcommand == "fit":
            self._refuse_untrained()
        given = {key: value for key, value in self.config_dump.items() if key not in ("runs", "config", "store_only")}
        name = "-".join(given[part]["class_path"].rsplit(".", 1)[-1] for part in ("model", "data"))
        self.checkpoint = given.pop("ckpt_path", None)
        self.store_only = bool(self._get(self.config, "store_only"))
        if self.subcommand == "fit":
            self.run = RunFolder(Path(self._get(self.config, "runs")), name, {**given, "ckpt_path": self.checkpoint})
            self.folder = self.run.folder
        else:
            self._refuse_missing_checkpoint()
            runs = Path(self._get(self.config, "runs"))
            run = run_of(Path(self.checkpoint)) if self.checkpoint else None
            if run is not None and runs != Path(RUNS) and not run.is_relative_to(runs.resolve()):
                run = None  # a folder was asked for that the checkpoint's run is not in
            parent = run or runs / name
            digest = config_hash({**given, "ckpt_path": self.checkpoint})  # best.ckpt and last.ckpt are two tests
            self.folder = parent / f"{self.subcommand}-{name.split('-')[1]}-{digest}"
        super().instantiate_classes()
        self.datamodule.watch(self.model)
        if self.store_only and not self._reads():
            raise ValueError(
                f"--store_only: this {type(self.model).__name__} keeps no readings, for no frozen backbone reads its "
                "videos; leave --store_only out"
            )

    def _refuse_untrained(self) -> None:
        """Before anything is built: a system may fetch its backbone when it is."""
        kind = pkgutil.resolve_name(self.config_dump["model"]["class_path"])
        if not getattr(kind, "trained", True):
            raise ValueError(
                f"{kind.__name__} is not trained, there is nothing to fit; say `lightning test` with the same configs"
            )

    def _reads(self) -> bool:
        """Whether this stage has any reading kept; the key may ask what the data says, as the trainer's setup will."""
        self.model.trainer, self.trainer.datamodule = self.trainer, self.datamodule
        if self.model.reading_key() is None:
            return False
        return any(self.model.reading_names(stream) for _, stream, _ in self.model.watched(self.subcommand))

    def _refuse_missing_checkpoint(self) -> None:
        if self.checkpoint is not None and not Path(self.checkpoint).is_file():
            raise FileNotFoundError(
                f"--ckpt_path {self.checkpoint}: no such file; a fit leaves last.ckpt in its run folder"
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        if self.store_only:
            return self._storing_trainer(config)
        quick = bool(config.get("fast_dev_run"))
        if self.subcommand == "fit" and not self.model.validates:
            config["limit_val_batches"] = 0
        config["default_root_dir"] = str(self.folder)
        config["plugins"] = [*_as_list(config.get("plugins")), AtomicCheckpointIO()]
        if config.get("logger") in (None, True) and not quick:
            config["logger"] = TensorBoardLogger(self.folder, name="", version="")
        guard = LeakGuard(self._get(self.config_init, "leaks"))
        writers = [kind(self.folder) for kind in (CaptionWriter, ScoreWriter, MaskPicture, LiveWriter)]
        extra: list[Any] = [guard, Evaluator(), Explainer(), *writers, Throughput(), Cost()]
        if config.get("enable_progress_bar") is not False:
            extra.append(Progress())
        if self.subcommand == "fit" and not quick:
            checkpoints = self.folder / "checkpoints"
            monitor = self.datamodule.monitor if self.model.validates else None
            if monitor is not None:
                extra.append(ModelCheckpoint(checkpoints, "best", monitor, mode="max", enable_version_counter=False))
            # after the best one: what it stores of the best is then up to date
            extra.append(LastCheckpoint(checkpoints, self._get(self.config_init, "save_every")))
            if config.get("logger"):
                extra.append(LearningRateMonitor())
        return self._instantiate_trainer(config, extra)

    def _storing_trainer(self, config: dict[str, Any]) -> Trainer:
        """One that sets up and runs no batch, leaves no folder behind and judges nothing."""
        self.save_config_callback = None
        config |= {f"limit_{stage}_batches": 0 for stage in ("train", "val", "test", "predict")}
        config |= dict.fromkeys(("fast_dev_run", "logger", "enable_checkpointing", "enable_model_summary"), False)
        config["callbacks"] = []
        config["plugins"] = [*_as_list(config.get("plugins")), AtomicCheckpointIO()]
        return self._instantiate_trainer(config, [Progress()] if config.get("enable_progress_bar") is not False else [])

    def before_fit(self) -> None:
        if self.trainer.fast_dev_run or self.store_only:
            return
        if self.run.unfinished:
            self.config_init.fit.ckpt_path = str(self.run.checkpoint)
            rank_zero_info(f"Going on with the unfinished run {self.folder}; delete that folder to start again.")
        elif self.checkpoint is not None:
            self._refuse_other_values()
        if self.config_init.fit.get("ckpt_path"):
            self.trainer.ckpt_path = self.config_init.fit.pop("ckpt_path")  # as in _compare_with_checkpoint
        if self.trainer.is_global_zero:
            self.run.claim()
        rank_zero_info(f"Run folder: {self.folder}")

    def after_fit(self) -> None:
        if self.store_only:
            say_what_is_kept(self.model, self.subcommand)
        elif self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            self.run.write_state("finished")

    def _refuse_other_values(self) -> None:
        """A fit that goes on from a checkpoint takes the optimiser from it, learning rate and all."""
        other = self._overruled()
        if other:
            raise ValueError(
                f"fit --ckpt_path {self.checkpoint} goes on with the values stored there, but "
                + "; ".join(f"{key} is {ours} here and {theirs} there" for key, (ours, theirs) in other.items())
                + "; give the same values, or leave --ckpt_path out to start anew"
            )

    def before_validate(self) -> None:
        self._compare_with_checkpoint()
        self.config_init[self.subcommand]["verbose"] = False  # ScoreWriter prints the table

    before_test = before_validate

    def after_validate(self) -> None:
        if self.store_only:
            say_what_is_kept(self.model, self.subcommand)

    after_test = after_predict = after_validate

    def before_predict(self) -> None:
        self._compare_with_checkpoint()
        self.config_init.predict["return_predictions"] = False  # they go to files, a long list would fill the memory

    def _compare_with_checkpoint(self) -> None:
        """Say which values of the checkpoint's configuration this run overrules."""
        if self.checkpoint is None:
            if self.model.needs_checkpoint and not self.store_only:
                raise ValueError(
                    f"{self.subcommand} needs a trained {type(self.model).__name__}; add --ckpt_path runs/.../last.ckpt"
                )
            return
        # as an argument, Lightning would keep it from `setup`, where what was fitted decides what has to be read
        self.trainer.ckpt_path = self.config_init[self.subcommand].pop("ckpt_path")
        for key, (ours, theirs) in self._overruled().items():
            rank_zero_info(f"{key}: {ours} as given here; the checkpoint was trained with {theirs}.")

    def _overruled(self) -> dict[str, tuple[Any, Any]]:
        """{hyper-parameter: (given here, stored in the checkpoint)} of those that differ."""
        stored = AtomicCheckpointIO().load_checkpoint(self.checkpoint).get("hyper_parameters", {})
        given = self.config_dump["model"].get("init_args", {})
        return {
            key: (value, stored[key])
            for key, value in given.items()
            if key in stored and _plain(stored[key]) != _plain(value)
        }


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml into the run folder; a run gone on with finds its own there and writes it again."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.already_saved = not trainer.is_global_zero
        if not self.already_saved:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            text = self.parser.dump(self.config, skip_none=False)
            (folder / "config.yaml").write_text(text)
            self.already_saved = True


def _plain(value: Any) -> Any:
    return yaml.safe_load(yaml.safe_dump(value)) if not isinstance(value, tuple) else list(value)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def cause(message: str) -> str:
    """What a class said when it was built, out of jsonargparse's list of the types that a value might have had."""
    reasons = re.findall(r"^  - (?!Expected a <class 'NoneType'>)(.*)$", message, flags=re.MULTILINE)
    return reasons[0] if message.startswith("Does not validate") and reasons else message


def quieten() -> None:
    """Leave out what Lightning says of its other products, and of choices that are made on purpose here."""
    noise = re.compile(r"litlogger|litmodels|weights_only. was not set|TPU available|Total FLOPs")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).addFilter(lambda record: not noise.search(record.getMessage()))
    for text in (
        "does not have many workers",
        "isinstance.treespec, LeafSpec",
        "callbacks used to create the checkpoint",
        "in eval mode at the start of training",  # a frozen encoder is meant to be
        "overridden .transfer_batch_to_device",
        "training batches .1. is smaller than the logging interval",
        "this fit will run with no optimizer",  # a convex loss has a solver of its own
        "IterableDataset. has .__len__. defined",
    ):
        warnings.filterwarnings("ignore", message=f".*{text}.*")


def run(args: list[str]) -> None:
    """Run one command; errors of the user's making are a line on standard error and status 1."""
    quieten()
    before, sys.argv = sys.argv, [sys.argv[0], *args]  # DDP starts its other processes with sys.argv
    torch.set_float32_matmul_precision("high")
    try:
        report(_run)
    except SystemExit as stop:
        if stop.code in (130, 143):
            sys.stderr.write("Stopped, with a checkpoint. The same command goes on where it stopped.\n")
        if isinstance(stop.__context__, KeyboardInterrupt):  # outside training, or at the second Ctrl-C
            sys.stderr.write("Stopped at once. The same command goes on from the last checkpoint; readings are kept.\n")
            raise SystemExit(130) from None
        raise
    finally:
        sys.argv = before


def _run() -> None:
    try:
        VigilCli(
            System,
            VideoDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            parser_class=Parser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )
    except SIGTERMException:
        raise SystemExit(143) from None


def report(command: Callable[..., None], *args: Any) -> None:
    """command(*args), with an error of the user's making as a line on standard error and SystemExit(1)."""
    try:
        command(*args)
    except (ValueError, OSError, MisconfigurationException) as error:
        if os.environ.get("VIGIL_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {cause(str(error))}\n")
        if "gpu backend" in str(error) or "accelerator" in str(error):
            sys.stderr.write("Without a GPU, -c configs/machines/cpu.yaml is the machine.\n")
        raise SystemExit(1) from error
