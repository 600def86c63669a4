"""Multiple-instance ranking: a video's label teaches its segments."""

from __future__ import annotations

from torch import Tensor, nn


def rank_bags(anomalous: Tensor, normal: Tensor, margin: float = 1.0) -> Tensor:
    """Hinge on the maxima: an anomalous bag's highest segment shall exceed a normal bag's by `margin`.

    anomalous (B, N) and normal (B, N): scores in [0, 1]; row i is ranked against row i. Returns a scalar, 0 or more.
    Raises ValueError where the two do not pair up or a bag is empty.
    Source: Sultani et al., CVPR 2018, eq. 6, mean over the batch. Differs: their code ranks every anomalous bag
    against every normal one of a batch; the equation ranks pairs.
    """
    if anomalous.ndim != 2 or anomalous.shape[0] != normal.shape[0] or 0 in (*anomalous.shape, *normal.shape):
        raise ValueError(
            f"anomalous bags {tuple(anomalous.shape)} and normal bags {tuple(normal.shape)} do not pair up; "
            "(B, N) each, with the same B of at least 1, is expected"
        )
    return (margin - anomalous.amax(1) + normal.amax(1)).clamp(min=0).mean()


def smoothness(score: Tensor) -> Tensor:
    """How much neighbouring segments differ: the sum of squared differences of each bag, averaged over bags.

    score (B, N) of anomalous bags. Returns a scalar, 0 or more. Source: Sultani et al., CVPR 2018, eq. 7, term 1.
    """
    return (score[:, 1:] - score[:, :-1]).square().sum(1).mean()


def sparsity(score: Tensor) -> Tensor:
    """How much of a bag is called anomalous: the sum of its scores, averaged over bags.

    score (B, N) of anomalous bags. Returns a scalar, 0 or more. Source: Sultani et al., CVPR 2018, eq. 7, term 2.
    """
    return score.sum(1).mean()


class SegmentScorer(nn.Sequential):
    """Fully connected scorer of segments: (..., D) -> logit (...).

    Source: Sultani et al., CVPR 2018, Sec. 3.3: 512, 32 and 1 units, ReLU after the first, 60 % dropout between.
    """

    def __init__(self, width: int, hidden: tuple[int, int] = (512, 32), dropout: float = 0.6) -> None:
        super().__init__(
            nn.Linear(width, hidden[0]),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden[0], hidden[1]),
            nn.Dropout(dropout),
            nn.Linear(hidden[1], 1),
        )
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)  # as their code does; the paper does not say
                nn.init.zeros_(layer.bias)

    def forward(self, feature: Tensor) -> Tensor:
        logit: Tensor = super().forward(feature)  # type: ignore[no-untyped-call]
        return logit.squeeze(-1)
