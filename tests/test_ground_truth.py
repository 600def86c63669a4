"""XD-Violence's ground truth in every convention, against the published totals and a loop from the definition.

UCF-Crime's stands in test_annotations.py, beside its files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vigil.annotations import (
    CONVENTIONS,
    XD_VIOLENCE_CONVENTIONS,
    array_length,
    array_lengths,
    frame_labels,
    lengths,
    xd_violence,
)
from vigil.types import Video

TOTALS = {"full": (2_335_801, 538_324), "xdviodet": (2_330_384, 537_805), "vadclip": (2_331_296, 537_882)}


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "xd_violence"


@pytest.mark.parametrize("file", ["annotations.txt", "XD_Annotation_urdmu.txt"])
@pytest.mark.parametrize("convention", XD_VIOLENCE_CONVENTIONS)
def test_totals_of_every_convention_are_the_published_arrays(data: Path, convention: str, file: str) -> None:
    videos = xd_violence(data / "annotations" / file)
    length = array_lengths(lengths(data / "xd_test_lengths.csv"), convention)
    labels = frame_labels(videos, length, convention)
    assert (len(videos), len(labels)) == (500, 800)  # the 300 normal ones come in by name
    assert (sum(map(len, labels.values())), sum(int(label.sum()) for label in labels.values())) == TOTALS[convention]


@pytest.mark.parametrize("convention", ["xdviodet", "vadclip"])
def test_array_lengths_by_rule_are_those_of_the_published_arrays(data: Path, convention: str) -> None:
    rows = lengths(data / "xd_test_lengths.csv")
    assert len(rows) == 800
    for name, row in rows.items():
        assert array_length(row["frames"], None, convention, name) == row[f"len_{convention}"]


@pytest.mark.parametrize("convention", XD_VIOLENCE_CONVENTIONS)
def test_frame_labels_equal_a_loop_over_frames(data: Path, convention: str) -> None:
    videos = xd_violence(data / "annotations" / "annotations_multiclasses.txt")[:25]
    rows = lengths(data / "xd_test_lengths.csv")
    length = array_lengths({video.name: rows[video.name] for video in videos}, convention)
    labels = frame_labels(videos, length, convention)
    for video in videos:
        assert video.anomalies is not None
        expected = [any(first <= frame < end for first, end in video.anomalies) for frame in range(length[video.name])]
        assert np.array_equal(labels[video.name], expected)


@pytest.mark.parametrize(("n_frames", "frames"), [(17, 16), (32, 16), (33, 32), (48, 32)])
def test_xdviodet_drops_the_last_frame_before_it_counts_snippets(n_frames: int, frames: int) -> None:
    assert array_length(n_frames, None, "xdviodet", "v=x__#1_label_A") == frames
    assert array_length(n_frames, n_frames, "urdmu", "v=x__#1_label_A") == frames  # the same rule on OpenCV's count


def test_vadclip_has_a_snippet_more_of_three_normal_videos() -> None:
    longer = [f"v={name}__#1_label_A" for name in ("KERh4R2BbS0", "vHnAmx0UYbM", "wQrV75N2BrI")]
    assert [array_length(100, None, "vadclip", name) for name in (*longer, "v=x__#1_label_A")] == [112, 112, 112, 96]


def test_a_video_too_short_for_a_snippet_and_unknown_conventions_are_refused() -> None:
    with pytest.raises(ValueError, match="16 frames hold no 16-frame snippet"):
        array_length(16, None, "xdviodet", "v=x__#1_label_A")
    with pytest.raises(ValueError, match=r"'gt' is unknown; expected one of full, .*rtfm, vera, xdviodet"):
        frame_labels([], {}, "gt")
    assert set(CONVENTIONS) & set(XD_VIOLENCE_CONVENTIONS) == {"full", "vadclip"}


def test_an_event_after_the_last_snippet_is_clipped_away_and_one_far_beyond_is_refused() -> None:
    video = Video("v=x__#1_label_G", label=1, anomalies=[(2, 5), (34, 40)])
    assert frame_labels([video], {video.name: 32}, "xdviodet")[video.name].sum() == 3
    with pytest.raises(ValueError, match="starts its event at frame 34, the array has 16"):
        frame_labels([video], {video.name: 16}, "xdviodet")
