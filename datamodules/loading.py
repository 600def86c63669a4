"""How batches are dealt: an order that a seed decides, shards of one length, and loaders that go on in mid-epoch."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DataLoader, Sampler

from vigil.types import Clip

RUN_BATCHES = 50  # ours: a batch of one length, and one epoch's batches still unlike the next's


def outlast_signals(_: int) -> None:
    """For a loader's worker: what stops a whole process group shall find it alive until the batch under way is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))  # and no longer, should nobody end it


def batch_share(size: int, rank: int, world: int) -> slice:
    """Which of a batch's `size` items one of `world` processes takes. Raises ValueError where they do not divide it."""
    if size % world:
        near = " or ".join(str(n) for n in (size // world * world, (size // world + 1) * world) if n)
        raise ValueError(
            f"batch_size {size} is shared by {world} processes; it must be a multiple of {world}, such as {near}"
        )
    return slice(rank, size, world)


class SeededBatches(Sampler[list[int]]):
    """Batches of `size` from each group, in an order that (seed, epoch) alone decides; each rank takes its share.

    `size` counts all ranks together, so a recipe does not change with the number of GPUs; ValueError where the ranks
    do not divide it. The shorter group goes round until the longer one is through. lengths: of each item, in any unit;
    a batch then holds items of about one length, which are padded little: the epoch's order is sorted in runs of
    RUN_BATCHES batches, and the batches are shuffled.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.share = batch_share(size, rank, world)
        self.groups = [np.asarray(group) for group in groups]
        self.size, self.seed, self.epoch = size, seed, 0
        self.lengths = None if lengths is None else np.asarray(lengths)

    @property
    def sampler(self) -> SeededBatches:
        return self  # Lightning tells the epoch to batch_sampler.sampler, and to nobody without one

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(max(len(group) for group in self.groups) / self.size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        orders = []
        for group in self.groups:
            rounds = math.ceil(len(self) * self.size / len(group))
            order = np.concatenate([generator.permutation(group) for _ in range(rounds)])[: len(self) * self.size]
            orders.append(order if self.lengths is None else self._by_length(order))
        starts = self.size * np.arange(len(self))
        for start in starts if self.lengths is None else generator.permutation(starts):
            yield [int(i) for order in orders for i in order[start : start + self.size][self.share]]

    def _by_length(self, order: np.ndarray) -> np.ndarray:
        """The items of `order`, each run of batches sorted by length."""
        assert self.lengths is not None
        run = RUN_BATCHES * self.size
        runs = [order[first : first + run] for first in range(0, len(order), run)]
        return np.concatenate([items[np.argsort(self.lengths[items], kind="stable")] for items in runs])


class Shard(Sampler[int]):
    """Every `world`-th item from `rank`, padded by going round: all ranks get equally many, metrics drop repeats."""

    def __init__(self, n_items: int, rank: int = 0, world: int = 1) -> None:
        per_rank = math.ceil(n_items / world)
        self.items = [(rank + world * k) % n_items for k in range(per_rank)]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[int]:
        return iter(self.items)


class ResumableLoader(DataLoader):
    """A DataLoader that goes on in the middle of an epoch: its state is how many batches it has yielded.

    A state at the end of an epoch reads as 0, since the next pass is the next epoch's.
    """

    _start = 0
    _yielded = 0

    def __iter__(self) -> Iterator[Clip]:
        self._yielded, self._start = self._start, 0
        for batch in self._rest(self._yielded) if self._yielded else super().__iter__():
            self._yielded += 1
            yield batch

    def _rest(self, done: int) -> Iterator[Clip]:
        assert self.batch_sampler is not None
        rest = list(self.batch_sampler)[done:]  # in a loader of its own: this one's workers serve the next epochs
        yield from DataLoader(
            self.dataset,
            batch_sampler=rest,
            collate_fn=self.collate_fn,
            num_workers=self.num_workers,
            worker_init_fn=outlast_signals,
        )

    def state_dict(self) -> dict[str, int]:
        return {"yielded": self._yielded % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = state["yielded"]
