"""Every frame is watched, and every frame is answered for."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from vigil.live import CausalWindows
from vigil.types import Clip, View

WINDOWS = [View(4, 4, 16), View(8, 3, 24), View(3, 2, 1), View(2, 2, 9), View(1, 1, 1), View(1, 5, 30)]
LENGTHS = [1, 2, 5, 15, 16, 17, 31, 64, 65, 257]


@pytest.mark.parametrize("view", WINDOWS)
@pytest.mark.parametrize("n_frames", LENGTHS)
def test_windows_answer_for_every_frame_and_none_beyond_the_video(view: View, n_frames: int) -> None:
    covered = np.zeros(n_frames, dtype=int)
    for first, end in view.spans(n_frames).tolist():
        assert 0 <= first < end <= n_frames
        covered[first:end] += 1
    assert covered.min() >= 1
    assert view.spans(n_frames)[:, 0].tolist() == list(range(0, view.hop * len(view.spans(n_frames)), view.hop))


@pytest.mark.parametrize("view", WINDOWS)
@pytest.mark.parametrize("n_frames", LENGTHS)
def test_a_window_reads_frames_a_stride_apart_and_holds_the_last_one(view: View, n_frames: int) -> None:
    indices = view.indices(n_frames)
    assert indices.dtype == np.int64
    assert len(indices) == len(view.spans(n_frames))
    for window, row in enumerate(indices.tolist()):
        for t, frame in enumerate(row):
            wanted = window * view.hop + t * view.stride
            assert frame == (wanted if wanted < n_frames else n_frames - 1)


@pytest.mark.parametrize("view", [view for view in WINDOWS if view.hop <= view.frames * view.stride])
@pytest.mark.parametrize("n_frames", LENGTHS)
def test_no_window_is_wholly_beyond_what_the_one_before_it_covers(view: View, n_frames: int) -> None:
    ends = view.spans(n_frames)[:, 1].tolist()
    assert all(end < n_frames for end in ends[:-1])


SIXTEEN, FIVE, SEVEN = View(16, 1.5, 24), View(5, 4.8, 24), View(7, 24 / 7, 24)


@pytest.mark.parametrize("view", [SIXTEEN, FIVE, SEVEN, View(16, 24 / 16, 12), View(2, 2.5, 4), View(3, 10.1, 7)])
@pytest.mark.parametrize("n_frames", LENGTHS)
def test_a_stride_may_be_a_fraction_and_each_place_is_rounded_down(view: View, n_frames: int) -> None:
    step = {1.5: (3, 2), 4.8: (24, 5), 24 / 7: (24, 7), 2.5: (5, 2), 10.1: (101, 10)}[view.stride]
    reach = -(-view.frames * step[0] // step[1])
    spans = view.spans(n_frames).tolist()
    rows = view.indices(n_frames)
    assert rows.dtype == np.int64
    assert len(rows) == len(spans)
    for window, (row, (first, end)) in enumerate(zip(rows.tolist(), spans, strict=True)):
        assert (first, end) == (window * view.hop, min(window * view.hop + max(reach, view.hop), n_frames))
        for k, frame in enumerate(row):
            assert frame == min(first + k * step[0] // step[1], n_frames - 1) < end
    assert {frame for first, end in spans for frame in range(first, end)} == set(range(n_frames))


def test_keyframes_of_a_segment_of_24_lie_evenly_and_within_it() -> None:
    assert SIXTEEN.offsets.tolist() == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
    assert FIVE.offsets.tolist() == [0, 4, 9, 14, 19]  # 4.8 * 5 is 24, although the float nearest to 4.8 is below it
    assert SEVEN.offsets.tolist() == [0, 3, 6, 10, 13, 17, 20]
    for view in (SIXTEEN, FIVE, SEVEN):
        assert view.spans(72).tolist() == [[0, 24], [24, 48], [48, 72]]


@pytest.mark.parametrize("view", [SIXTEEN, View(4, 2.5, 3), View(3, 4.8, 1)])
def test_a_causal_window_has_the_shape_of_any_other_and_ends_at_the_newest_frame(view: View) -> None:
    windows, found = CausalWindows(view), []
    for number in range(60):
        found.append(windows.add(torch.tensor([[[number]]])))
    back = [view.offsets.tolist()[-1] - offset for offset in view.offsets.tolist()]
    for number, window in enumerate(found):
        if number % view.hop:
            assert window is None
        else:
            assert window.frame.tolist() == [max(number - steps, 0) for steps in back]
            assert window.pixels.flatten().tolist() == window.frame.tolist()


def test_a_whole_stride_is_an_integer_in_every_key_that_is_made_of_a_view() -> None:
    views = [View(8, 3, 24), View(8, 3.0, 24)]
    assert len(set(views)) == 1
    for view in views:
        assert json.dumps(dataclasses.asdict(view)) == '{"frames": 8, "stride": 3, "hop": 24, "segments": null}'
    assert dataclasses.asdict(SIXTEEN)["stride"] == 1.5
    assert Fraction(SIXTEEN.stride) == Fraction(3, 2)


def test_the_last_window_is_padded_by_the_last_frame() -> None:
    assert View(4, 4, 16).indices(22).tolist() == [[0, 4, 8, 12], [16, 20, 21, 21]]
    assert View(4, 4, 16).spans(22).tolist() == [[0, 16], [16, 22]]


def test_a_video_of_one_frame_is_one_window_of_it() -> None:
    assert View(4, 4, 16).indices(1).tolist() == [[0, 0, 0, 0]]
    assert View(4, 4, 16).spans(1).tolist() == [[0, 1]]


def test_a_video_shorter_than_a_window_is_one_window() -> None:
    assert View(4, 4, 16).indices(7).tolist() == [[0, 4, 6, 6]]
    assert View(4, 4, 16).spans(7).tolist() == [[0, 7]]


def test_with_a_hop_beyond_the_window_a_score_holds_until_the_next() -> None:
    view = View(frames=2, stride=2, hop=9)
    assert view.spans(20).tolist() == [[0, 9], [9, 18], [18, 20]]
    assert view.indices(20).tolist() == [[0, 2], [9, 11], [18, 19]]


@pytest.mark.parametrize(("frames", "segments"), [(4, 32), (1, 32), (3, 5), (16, 1)])
@pytest.mark.parametrize("n_frames", [1, 7, 31, 32, 33, 128, 1000])
def test_a_bag_reads_the_middle_of_equal_parts(frames: int, segments: int, n_frames: int) -> None:
    indices = View(frames=frames, segments=segments).indices(n_frames)
    assert indices.shape == (segments, frames)
    for segment in range(segments):
        for t in range(frames):
            part = segment * frames + t  # of segments * frames parts; its middle, cut to a whole frame
            assert indices[segment, t] == (2 * part + 1) * n_frames // (2 * segments * frames)
    assert indices.max() < n_frames


@pytest.mark.parametrize("n_frames", [32, 33, 100, 1000])
def test_segments_of_a_bag_follow_each_other_and_hold_their_frames(n_frames: int) -> None:
    view = View(frames=2, segments=32)
    spans = view.spans(n_frames)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == n_frames
    assert (spans[1:, 0] == spans[:-1, 1]).all()
    lengths = spans[:, 1] - spans[:, 0]
    assert lengths.max() - lengths.min() <= 1
    if n_frames >= 64:
        assert (view.indices(n_frames) >= spans[:, :1]).all()
        # a frame that two parts share is read for the first and answered for by the second
        assert (view.indices(n_frames) <= spans[:, 1:]).all()


def test_a_bag_of_a_video_shorter_than_its_segments_repeats_frames() -> None:
    view = View(frames=1, segments=6)
    assert view.indices(3).ravel().tolist() == [0, 0, 1, 1, 2, 2]
    assert view.spans(3)[[0, -1]].tolist() == [[0, 0], [2, 3]]


@pytest.mark.parametrize("view", [View(4, 4, 16), View(frames=4, segments=32)])
def test_a_video_without_frames_is_refused(view: View) -> None:
    with pytest.raises(ValueError, match="0 frames cannot be watched"):
        view.indices(0)


@pytest.mark.parametrize(
    "settings",
    [
        {"frames": 4},
        {"frames": 4, "stride": 2},
        {"frames": 0, "stride": 2, "hop": 8},
        {"frames": 4, "stride": 2, "hop": 0},
        {"frames": 4, "stride": 2, "segments": 32},
        {"frames": 4, "stride": 0.5, "hop": 8},
        {"frames": 4, "stride": float("nan"), "hop": 8},
        {"frames": 4, "stride": float("inf"), "hop": 8},
        {"frames": 4, "stride": 1.5, "segments": 32},
        {"frames": 4, "hop": 2, "segments": 32},
        {"frames": 4, "segments": 0},
    ],
)
def test_a_view_that_is_neither_windows_nor_a_bag_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs frames"):
        View(**settings)


def test_a_clip_moves_with_all_its_tensors() -> None:
    clip = Clip(
        video=["a"],
        span=torch.tensor([[0, 4]]),
        frame={"video": torch.tensor([[0, 2]])},
        pixels={"video": torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)},
        features={"video": torch.zeros(1, 1, 5)},
        label=torch.tensor([1]),
        category=["Arson"],
        frame_label=torch.tensor([[0, 1]]),
        mask=torch.zeros(1, 2, 4, 4, dtype=torch.bool),
    )
    moved = clip.to("meta")
    for field in dataclasses.fields(Clip):
        before, after = getattr(clip, field.name), getattr(moved, field.name)
        if isinstance(before, torch.Tensor):
            before, after = {"": before}, {"": after}
        if isinstance(before, dict):
            for key in before:
                assert after[key].device.type == "meta"
                assert before[key].device.type == "cpu"
        else:
            assert after == before
