"""Metrics of class scores: how often the true category is among the best k, and how far they are probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vigil.judging import class_numbers
from vigil.types import Clip, Prediction, Video


class TopK(Metric):
    """Share of samples whose true category is among the k best scored ones, and all that `judging.class_numbers` says.

    A sample is one row of a clip: class_score floating point and finite (B, K), a column per category in the order of
    `categories`, and clip.category. Categories that tie with the true one count by chance: the expected value if ties
    were broken at random, so equal scores for all give k / K. A k of K or more would always be 1 and is left out.
    A sample that comes twice, by (video, span), counts once, or as often as `samples` says, {(video, first, end): how
    many samples the span stands for}. temperature: fitted on other samples, set from outside, None where there is none.
    Raises ValueError without class scores, for a category that is none of `categories`, for a clip of no video of the
    list; and in compute naming videos without a sample, or one that came with two categories for the same span.
    """

    full_state_update = False
    rows: list[Tensor] | Tensor

    def __init__(
        self,
        videos: Sequence[Video],
        categories: Sequence[str],
        samples: Mapping[tuple[str, int, int], int] | None = None,
    ) -> None:
        super().__init__(compute_with_cache=False)
        self.samples = dict(samples or {})
        self.videos, self.categories = list(videos), list(categories)
        self._index = {video.name: index for index, video in enumerate(self.videos)}
        if len(self._index) < len(self.videos):
            raise ValueError(f"{len(self.videos)} videos share {len(self._index)} names; every name must occur once")
        if len(set(self.categories)) < max(len(self.categories), 2):
            raise ValueError(f"categories {self.categories}: at least two are expected, each once")
        self.temperature: float | None = None
        self._samples: np.ndarray | None = None
        # int64 (R, 4 + K): video, span, true category, the bits of every category's float32 score
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, clip: Clip, prediction: Prediction) -> None:
        """Take in the class scores of one clip."""
        unknown = [name for name in clip.video if name not in self._index]
        if unknown:
            raise ValueError(f"a clip of {unknown[0]}, which is none of the {len(self.videos)} videos to be judged")
        true, score = class_scores(clip, prediction, self.categories)
        video = torch.tensor([self._index[name] for name in clip.video])
        bits = (score + 0).contiguous().view(torch.int32)  # + 0: a score of -0.0 is 0
        columns = [video[:, None], clip.span.cpu(), torch.tensor(true)[:, None], bits]
        assert isinstance(self.rows, list)
        self.rows.append(torch.cat([column.to(self.device) for column in columns], dim=1))
        self._samples = None

    def compute(self) -> dict[str, float]:
        """The numbers of `judging.class_numbers` over all samples."""
        samples = self._gathered()
        video = [self.videos[number].name for number in samples[:, 0]]
        return class_numbers(samples[:, 3], samples[:, 4:].astype(np.int32).view(np.float32), video, self.temperature)

    def scores(self) -> list[tuple[str, int, int, str, list[float]]]:
        """Every sample: video, first frame, end frame, true category, and the score of each category; as `counts`."""
        self.counts()
        return [
            (self.videos[row[0]].name, row[1], row[2], self.categories[row[3]], score)
            for row, score in zip(
                self._gathered()[:, :4].tolist(),
                self._gathered()[:, 4:].astype(np.int32).view(np.float32).tolist(),
                strict=True,
            )
        ]

    def counts(self) -> dict[str, int]:
        """Samples of every category, of all processes.

        After `compute` a process may ask alone; before, all must ask together. Raises ValueError as `compute` does.
        """
        if self._samples is None:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn):
                self._gathered()
        number = np.bincount(self._gathered()[:, 3], minlength=len(self.categories))
        return dict(zip(self.categories, number.tolist(), strict=True))

    def sync(self, *args: object, **kwargs: object) -> None:
        """As torchmetrics, but a process without any clip joins in with no rows, not a tensor of another shape."""
        self._samples = None  # from now on those of all processes
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(torch.zeros((0, 4 + len(self.categories)), dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)  # type: ignore[arg-type]

    def reset(self) -> None:
        """Forget every sample."""
        super().reset()
        self._samples = None

    def _gathered(self) -> np.ndarray:
        if self._samples is None:
            rows = (
                dim_zero_cat(self.rows).cpu().numpy()
                if len(self.rows)
                else np.zeros((0, 4 + len(self.categories)), dtype=np.int64)
            )
            rows = rows[np.lexsort(rows.T[::-1])]  # the same order however clips were dealt to processes
            again = (rows[1:, :3] == rows[:-1, :3]).all(axis=1)
            torn = np.flatnonzero(again & (rows[1:, 3] != rows[:-1, 3]))
            if len(torn):
                video, first, end, one = rows[torn[0], :4].tolist()
                raise ValueError(
                    f"{self.videos[video].name}: frames {first} to {end} came as {self.categories[one]} and as "
                    f"{self.categories[rows[torn[0] + 1, 3]]}; one category per span is expected"
                )
            missing = sorted(set(range(len(self.videos))) - set(rows[:, 0].tolist()))
            if missing:
                names = ", ".join(self.videos[video].name for video in missing[:10])
                raise ValueError(
                    f"{len(missing)} of {len(self.videos)} videos have no class scores: {names}"
                    f"{', …' if len(missing) > 10 else ''}; score every sample of every video"
                )
            once = rows[np.append(True, ~again)]
            times = [self.samples.get((self.videos[video].name, a, b), 1) for video, a, b in once[:, :3].tolist()]
            self._samples = np.repeat(once, times, axis=0)
        return self._samples


def class_scores(clip: Clip, prediction: Prediction, categories: Sequence[str]) -> tuple[list[int], Tensor]:
    """The true category of each row of a clip, by its number, and its scores float32 (B, K).

    Raises ValueError without class scores or with others than a finite one per category, and for an unknown category.
    """
    if prediction.class_score is None:
        raise ValueError(f"{clip.video[0]}: this system gives no class scores; leave top-k out or test another one")
    score = prediction.class_score.detach()
    unknown = sorted(set(clip.category or [""]) - set(categories))
    if unknown:
        found = f"category {unknown[0]}" if clip.category else "no category"
        raise ValueError(f"{clip.video[0]}: a clip of {found}; one of {', '.join(categories)} is expected")
    expected = (len(clip.video), len(categories))
    if score.shape != expected or not score.is_floating_point() or not score.isfinite().all():
        raise ValueError(
            f"{clip.video[0]}: class_score is {score.dtype} {tuple(score.shape)}, "
            f"{int(score.isfinite().sum())} of {score.numel()} finite; finite floats {expected} are expected"
        )
    return [categories.index(category) for category in clip.category or []], score.float()
