"""LeakGuard: what a system was fitted on, so that it is not tested on the same videos unawares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from vigil.exposure import spelling

Seen = Mapping[
    str, Mapping[str, Any]
]  # who was fitted on what -> {"videos": {family/name: fingerprint}, "phrases": […]}


class LeakGuard(Callback):
    """On a fit, notes in the system which videos and phrases it sees; on a test, refuses videos that it has seen.

    What the system was started from counts as seen too: a checkpoint carries what it inherited. leaks: "refuse", or
    "record" to test all the same and have the number stand beside the metrics. leaked: {test video: why}, None where
    the checkpoint does not say what it saw; categories_seen: categories of the test set among the phrases of a fit.
    """

    def __init__(self, leaks: str = "refuse") -> None:
        if leaks not in ("refuse", "record"):
            raise ValueError(f"leaks {leaks!r}: expected refuse or record")
        self.leaks = leaks
        self.leaked: dict[str, str] | None = None
        self.categories_seen: list[str] = []

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.fast_dev_run:
            return
        data = trainer.datamodule
        saw = trainer.strategy.broadcast(data.seen() if trainer.is_global_zero else {})
        name = f"{type(module).__name__} on {type(data).__name__}"
        fits = [name, *(f"{name}, fit {number}" for number in range(2, len(module.seen) + 2))]
        # a run gone on with finds its own note; one started from another fit on such data leaves that one's as it is
        module.seen[next(fit for fit in fits if module.seen.get(fit, saw) == saw)] = saw

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        tested = trainer.datamodule.tested() if trainer.is_global_zero else {}
        tested = trainer.strategy.broadcast(tested)
        data = trainer.datamodule
        self.categories_seen = categories_seen(module.seen, list(dict.fromkeys([*data.categories, *data.phrases])))
        _refuse_held_out(module.seen, data)
        for who, what in module.seen.items():
            if what.get("hold_out") and sorted(what["hold_out"]) != sorted(data.hold_out):
                held = ", ".join(what["hold_out"])
                rank_zero_info(f"{who} left out {held}; say hold_out here as well to have them judged apart.")
        if trainer.ckpt_path and not module.seen:
            rank_zero_info(f"{trainer.ckpt_path} does not say which videos it saw: leaks cannot be told.")
            return
        self.leaked = leaked(module.seen, tested)
        if not self.leaked:
            return
        some = "; ".join(f"{name} {why}" for name, why in list(self.leaked.items())[:10])
        found = f"{len(self.leaked)} of {len(tested)} test videos were seen in fitting: {some}"
        if self.leaks == "refuse":
            raise ValueError(f"{found}. Test on other videos, or say --leaks record to have the number recorded")
        rank_zero_info(f"{found}. Recorded as leaked: {len(self.leaked)}.")


def _refuse_held_out(seen: Seen, data: Any) -> None:
    names = {name.partition("/")[2] for what in seen.values() for name in what.get("videos", {})}
    fitted = sorted(name for name in names if data.category_of(name) in set(data.hold_out))
    if fitted:
        raise ValueError(
            f"hold_out says {', '.join(data.hold_out)}, yet the system was fitted on {len(fitted)} videos of it: "
            f"{', '.join(fitted[:10])}; fit with the same hold_out, or test without"
        )


def leaked(seen: Seen, tested: Mapping[str, str]) -> dict[str, str]:
    """{test video: why} of those that a fit saw, by their name or by their content under another name.

    tested: {family/name: fingerprint}, the fingerprint empty where there is no file.
    """
    found = {}
    for who, what in seen.items():
        videos = what.get("videos", {})
        content = {print_: name for name, print_ in videos.items() if print_}
        for name, print_ in tested.items():
            if name in videos:
                found[name] = f"(by {who})"
            elif print_ and print_ in content:
                found[name] = f"(by {who}, as {content[print_]})"
    return found


def categories_seen(seen: Seen, categories: list[str]) -> list[str]:
    """The categories that a fit was asked about, in whatever spelling."""
    phrases = {spelling(phrase) for what in seen.values() for phrase in what.get("phrases", [])}
    return [category for category in categories if spelling(category) in phrases]
