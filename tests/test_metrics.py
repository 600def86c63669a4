from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from vigil.curves import expand
from vigil.metrics import EventMap, FrameAp, FrameAuroc, FrameMetric, VideoAuroc
from vigil.temporal import smooth
from vigil.types import Clip, Prediction, Video, View

VIEW = View(frames=4, stride=3, hop=8)
CATEGORIES = ("Arson", "Fighting")


def make_videos(n_videos: int = 9, seed: int = 0) -> list[Video]:
    """Every third video normal, the others with one or two events; lengths that no window fits."""
    generator = np.random.default_rng(seed)
    videos = []
    for index in range(n_videos):
        n_frames = int(generator.integers(30, 120))
        first = int(generator.integers(0, 15))
        anomalies = [[], [(first, first + 12)], [(first, first + 5), (n_frames - 8, n_frames + 4)]][index % 3]
        category = CATEGORIES[index % 2] if anomalies else "Normal"
        videos.append(Video(f"video_{index}", None, n_frames, 25.0, int(bool(anomalies)), category, anomalies))
    return videos


def make_clips(videos: list[Video], view: View = VIEW, seed: int = 0) -> Iterator[tuple[Clip, Prediction]]:
    """Random scores of every window, two windows of one video to a clip."""
    generator = torch.Generator().manual_seed(seed)
    for video in videos:
        frames, spans = view.indices(video.n_frames), view.spans(video.n_frames)
        for at in range(0, len(frames), 2):
            frame, span = torch.from_numpy(frames[at : at + 2]), torch.from_numpy(spans[at : at + 2])
            score = torch.rand(frame.shape, generator=generator)
            yield Clip([video.name] * len(frame), span, {"video": frame}), Prediction(score)


def one_clip(score: torch.Tensor, frame: list[int], span: tuple[int, int], name: str = "a") -> tuple[Clip, Prediction]:
    return Clip([name], torch.tensor([span]), {"video": torch.tensor([frame])}), Prediction(score)


def scores_by_frame(videos: list[Video], clips: list[tuple[Clip, Prediction]]) -> dict[str, np.ndarray]:
    """From the words: a score holds until the next sampled frame, the last to the end of the span; overlaps average."""
    total = {video.name: np.zeros(video.n_frames) for video in videos}
    count = {video.name: np.zeros(video.n_frames) for video in videos}
    for clip, prediction in clips:
        for name, span, frame, score in zip(
            clip.video, clip.span.tolist(), clip.frame["video"].tolist(), prediction.frame_score.tolist(), strict=True
        ):
            for t in range(*span):
                reached = [frame.index(f) for f in sorted(set(frame)) if f <= t] or [0]  # index: the first of repeats
                total[name][t] += score[reached[-1]]
                count[name][t] += 1
    return {name: (total[name] / count[name]).astype(np.float32) for name in total}


def labels_by_frame(videos: list[Video]) -> dict[str, np.ndarray]:
    return {
        video.name: np.array([any(a <= t < b for a, b in video.anomalies) for t in range(video.n_frames)], dtype=int)
        for video in videos
    }


def feed(metric: FrameMetric, clips: list[tuple[Clip, Prediction]]) -> FrameMetric:
    for clip, prediction in clips:
        metric.update(clip, prediction)
    return metric


@pytest.mark.parametrize("view", [VIEW, View(4, stride=5, hop=20), View(2, stride=2, hop=11), View(1, segments=8)])
def test_curves_hold_scores_and_average_overlaps(view: View) -> None:
    videos = make_videos()
    clips = list(make_clips(videos, view))
    curves = feed(FrameAuroc(videos), clips).curves()
    assert list(curves) == [video.name for video in videos]
    for name, score in scores_by_frame(videos, clips).items():
        assert np.array_equal(expand(curves[name]), score)


def test_frame_auroc_and_ap_equal_scikit_learn_on_every_frame() -> None:
    videos = make_videos()
    clips = list(make_clips(videos))
    score, label = scores_by_frame(videos, clips), labels_by_frame(videos)

    def of(chosen: list[Video]) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([label[v.name] for v in chosen]), np.concatenate([score[v.name] for v in chosen])

    values = feed(FrameAuroc(videos), clips).compute() | feed(FrameAp(videos), clips).compute()
    precision, recall, _ = precision_recall_curve(*of(videos))
    anomalous, normal = [v for v in videos if v.label], [v for v in videos if not v.label]
    expected = {
        "frame_auroc": roc_auc_score(*of(videos)),
        "frame_auroc_anomalous": roc_auc_score(*of(anomalous)),
        "frame_auroc/Arson": roc_auc_score(*of([v for v in anomalous if v.category == "Arson"] + normal)),
        "frame_auroc/Fighting": roc_auc_score(*of([v for v in anomalous if v.category == "Fighting"] + normal)),
        "frame_ap": average_precision_score(*of(videos)),
        "frame_ap_trapezoid": auc(recall, precision),
    }
    intervals = {f"{key}_{side}" for key in ("frame_auroc", "frame_ap") for side in ("low", "high")}
    assert set(values) == set(expected) | intervals
    assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert all(type(value) is float for value in values.values())
    for key in ("frame_auroc", "frame_ap"):
        assert values[f"{key}_low"] < values[key] < values[f"{key}_high"]


def test_random_scores_give_one_half() -> None:
    videos = make_videos(150)
    share = np.concatenate(list(labels_by_frame(videos).values())).mean()
    values = [feed(FrameAuroc(videos), list(make_clips(videos, seed=seed))).compute() for seed in range(8)]
    assert np.mean([value["frame_auroc"] for value in values]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([value["frame_auroc_anomalous"] for value in values]) == pytest.approx(0.5, abs=0.02)
    assert sum(value["frame_auroc_low"] < 0.5 < value["frame_auroc_high"] for value in values) >= 6  # 95 % of 8
    assert feed(FrameAp(videos), list(make_clips(videos))).compute()["frame_ap"] == pytest.approx(share, abs=0.03)


def test_the_truth_itself_gives_one() -> None:
    videos = make_videos()
    label = labels_by_frame(videos)
    clips = []
    for video in videos:
        frame = torch.arange(video.n_frames)[None]
        score = torch.from_numpy(label[video.name]).float()[None]
        clips.append((Clip([video.name], torch.tensor([[0, video.n_frames]]), {"video": frame}), Prediction(score)))
    assert feed(FrameAuroc(videos), clips).compute()["frame_auroc_low"] == 1.0
    assert feed(FrameAp(videos), clips).compute()["frame_ap"] == 1.0
    events = EventMap(videos)
    events.threshold = 0.5
    assert feed(events, clips).compute() == {"event_map": 1.0, "false_alarms_per_hour": 0.0}


def test_repeated_clips_and_other_orders_change_no_bit() -> None:
    videos = make_videos()
    clips = list(make_clips(videos))
    once = feed(FrameAuroc(videos), clips).compute()
    shuffled = [clips[i] for i in np.random.default_rng(0).permutation(len(clips))]
    assert feed(FrameAuroc(videos), shuffled + clips[:7]).compute() == once


def test_the_stream_with_the_scores_shape_gives_the_frames() -> None:
    video = Video("a", None, 10, 25.0, 1, "Arson", [(0, 3)])
    metric = FrameAuroc([video])
    frame = {"mil": torch.tensor([[0, 1, 2]]), "video": torch.tensor([[0, 4]]), "late": torch.tensor([[0, 9]])}
    metric.update(Clip(["a"], torch.tensor([[0, 10]]), frame), Prediction(torch.tensor([[0.25, 0.75]])))
    assert expand(metric.curves()["a"]).tolist() == [0.25] * 4 + [0.75] * 6


def test_the_first_score_holds_from_the_start_of_the_span() -> None:
    metric = FrameAuroc([Video("a", None, 9, 25.0, 1, "Arson", [(0, 3)])])
    metric.update(*one_clip(torch.tensor([[0.2, 0.6, 0.9]]), [2, 5, 5], (0, 9)))
    assert expand(metric.curves()["a"]) == pytest.approx([0.2] * 5 + [0.6] * 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.25, 1.5])
def test_a_score_outside_zero_to_one_is_refused_by_video_frame_and_value(value: float) -> None:
    metric = FrameAuroc([Video("a", None, 9, 25.0, 1, "Arson", [(0, 3)])])
    with pytest.raises(ValueError, match=rf"a: the score of frame 5 is {value}"):
        metric.update(*one_clip(torch.tensor([[0.2, value]]), [2, 5], (0, 9)))


@pytest.mark.parametrize(
    ("frame", "span", "expected"),
    [
        ([4, 6, 8, 10], (10, 14), [0.9] * 4),  # a causal window: its newest frame answers
        ([0, 0, 0, 0], (0, 3), [0.1] * 3),  # frame 0 held: the same picture four times
        ([6, 8, 10, 12], (9, 14), [0.2, 0.3, 0.3, 0.9, 0.9]),
    ],
)
def test_of_frames_before_the_span_the_last_one_holds_from_its_start(
    frame: list[int], span: tuple[int, int], expected: list[float]
) -> None:
    metric = FrameMetric([Video("a", n_frames=span[1])])
    if span[0]:
        metric.update(*one_clip(torch.tensor([[0.5]]), [0], (0, span[0])))
    metric.update(*one_clip(torch.tensor([[0.1, 0.2, 0.3, 0.9]]), frame, span))
    assert expand(metric.curves()["a"])[span[0] :].tolist() == pytest.approx(expected)


def test_seen_and_unseen_categories_are_judged_apart_and_a_video_of_two_counts_in_both() -> None:
    generator = np.random.default_rng(3)
    named = ["Arson", "Fighting", "Arson+Fighting", "Shooting", None]
    videos = [
        Video(f"v{index}", n_frames=20, label=int(kind is not None), category=kind or "Normal",
              anomalies=[(5, 12)] if kind else [])
        for index, kind in enumerate(named)
    ]  # fmt: skip
    metric = FrameAuroc(videos, unseen=["Fighting"])
    score = {video.name: torch.from_numpy(generator.random((1, 20), dtype=np.float32)) for video in videos}
    for video in videos:
        metric.update(*one_clip(score[video.name], list(range(20)), (0, 20), video.name))
    result = metric.compute()
    truth = labels_by_frame(videos)

    def expected(*names: str) -> float:
        chosen = [f"v{index}" for index, kind in enumerate(named) if kind is None or kind in names]
        return roc_auc_score(
            np.concatenate([truth[name] for name in chosen]), np.concatenate([score[name][0] for name in chosen])
        )

    assert result["frame_auroc_unseen"] == pytest.approx(expected("Fighting", "Arson+Fighting"))
    assert result["frame_auroc_seen"] == pytest.approx(expected("Arson", "Shooting"))
    assert result["frame_auroc/Arson"] == pytest.approx(expected("Arson", "Arson+Fighting"))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_scores_that_are_not_float32_are_refused(kind: torch.dtype) -> None:
    metric = FrameAuroc([Video("a", None, 9, 25.0, 1, "Arson", [(0, 3)])])
    with pytest.raises(ValueError, match=f"a: scores are {kind}"):
        metric.update(*one_clip(torch.tensor([[0.2, 0.4]], dtype=kind), [2, 5], (0, 9)))


def test_clips_that_fit_nothing_are_refused() -> None:
    metric = FrameAuroc([Video("a", None, 9, 25.0, 1, "Arson", [(0, 3)])])
    with pytest.raises(ValueError, match="a clip of b"):
        metric.update(*one_clip(torch.tensor([[0.2]]), [0], (0, 9), name="b"))
    with pytest.raises(ValueError, match="fits no stream"):
        metric.update(*one_clip(torch.tensor([[0.2, 0.3, 0.4]]), [0, 2], (0, 9)))
    with pytest.raises(ValueError, match=r"\[5, 2\] do not ascend"):
        metric.update(*one_clip(torch.tensor([[0.2, 0.3]]), [5, 2], (0, 9)))
    metric.update(*one_clip(torch.tensor([[0.2, 0.3]]), [0, 9], (0, 10)))
    with pytest.raises(ValueError, match="the video has 9 frames"):
        metric.compute()


def test_videos_not_or_partly_scored_are_named() -> None:
    videos = make_videos(4)
    clips = [clip for clip in make_clips(videos) if clip[0].video[0] != "video_1"]
    with pytest.raises(ValueError, match=r"1 of 4 videos have frames without a score: video_1 \(frame 0\)"):
        feed(FrameAp(videos), clips).compute()
    with pytest.raises(ValueError, match=r"2 of 4 videos .* video_3 \(frame \d\d"):
        feed(FrameAp(videos), clips[:-1]).compute()
    with pytest.warns(UserWarning, match="before"), pytest.raises(ValueError, match="4 of 4"):
        FrameAp(videos).compute()


def test_a_reset_metric_has_seen_nothing() -> None:
    videos = make_videos(4)
    metric = feed(FrameAuroc(videos), list(make_clips(videos)))
    first = metric.compute()
    metric.reset()
    with pytest.raises(ValueError, match="4 of 4"):
        metric.curves()
    assert feed(metric, list(make_clips(videos, seed=1))).compute() != first


def test_two_videos_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="once"):
        FrameAuroc([Video("a"), Video("a")])


def test_what_the_videos_do_not_say_is_named() -> None:
    videos = make_videos(3)
    clips = list(make_clips(videos))
    videos[1].anomalies = None
    with pytest.raises(ValueError, match="1 of 3 videos have no anomalies: video_1"):
        feed(FrameAuroc(videos), clips).compute()
    videos[2].label = None
    with pytest.raises(ValueError, match="no label: video_2"):
        feed(VideoAuroc(videos), clips).compute()
    videos[0].n_frames = None
    with pytest.raises(ValueError, match="no n_frames: video_0"):
        feed(FrameAp(videos), clips).compute()


def test_frame_auroc_of_one_truth_is_refused_and_undefined_parts_are_left_out() -> None:
    clip = one_clip(torch.tensor([[0.2, 0.6]]), [0, 5], (0, 9))
    with pytest.raises(ValueError, match="0 anomalous and 9 normal"):
        feed(FrameAuroc([Video("a", None, 9, 25.0, 0, "Normal", [])]), [clip]).compute()
    videos = [Video("a", None, 9, 25.0, 1, "Arson", [(0, 9)]), Video("b", None, 9, 25.0, 0, "Normal", [])]
    values = feed(FrameAuroc(videos), [clip, one_clip(torch.tensor([[0.1]]), [0], (0, 9), name="b")]).compute()
    assert values["frame_auroc"] == values["frame_auroc/Arson"] == 1.0
    assert "frame_auroc_anomalous" not in values


def test_refined_keys_are_those_of_the_refined_curves() -> None:
    videos = make_videos()
    clips = list(make_clips(videos))
    raw = feed(FrameAuroc(videos), clips).compute()
    metric = feed(FrameAuroc(videos), clips)
    asked = []

    def refine(score: torch.Tensor) -> torch.Tensor:
        asked.append((tuple(score.shape), score.dtype))
        return smooth(score, 3.0)

    metric.refine = refine
    both = metric.compute()
    assert asked == [((video.n_frames,), torch.float32) for video in videos]
    assert set(both) == set(raw) | {f"{key}_refined" for key in raw}
    assert {key: both[key] for key in raw} == raw
    label = np.concatenate(list(labels_by_frame(videos).values()))
    score = np.concatenate([smooth(score, 3.0) for score in scores_by_frame(videos, clips).values()])
    assert both["frame_auroc_refined"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert np.array_equal(np.concatenate([expand(curve) for curve in metric.curves(refined=True).values()]), score)


@pytest.mark.parametrize("refines", [False, True])
@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75])
def test_gated_keys_are_those_of_the_final_curves_with_zeros_outside_the_segments(
    refines: bool, threshold: float
) -> None:
    videos = make_videos()
    clips = list(make_clips(videos))
    label = np.concatenate(list(labels_by_frame(videos).values()))
    scores = list(scores_by_frame(videos, clips).values())
    if refines:
        scores = [smooth(score, 2.0) for score in scores]
    gated = np.concatenate([[float(value) if value > threshold else 0.0 for value in score] for score in scores])
    expected = {
        "frame_auroc_gated": roc_auc_score(label, gated),
        "frame_ap_gated": average_precision_score(label, gated),
    }
    values = {}
    for kind in (FrameAuroc, FrameAp):
        metric = feed(kind(videos), clips)
        metric.refine = (lambda score: smooth(score, 2.0)) if refines else None
        before = metric.compute()
        metric.gate_at = threshold
        both = metric.compute()
        raw = {key for key in before if not key.endswith("_refined")}
        assert set(both) == set(before) | {f"{key}_gated" for key in raw}
        assert {key: both[key] for key in before} == before
        values |= both
    assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert values["frame_auroc_gated"] != values["frame_auroc_refined" if refines else "frame_auroc"]


def test_a_gate_leaves_events_as_they_are() -> None:
    videos = make_videos()
    metric = feed(EventMap(videos), list(make_clips(videos)))
    metric.threshold = 0.6
    before = metric.compute()
    metric.gate_at = 0.9
    assert metric.compute() == before


def test_refining_to_another_length_or_beyond_one_is_refused() -> None:
    videos = make_videos(3)
    metric = feed(FrameAp(videos), list(make_clips(videos)))
    with pytest.raises(ValueError, match="refine was not set"):
        metric.curves(refined=True)
    for wrong in (lambda score: score[1:], lambda score: score + 1):
        metric.refine = wrong
        with pytest.raises(ValueError, match="refine made"):
            metric.compute()


def test_video_auroc_ranks_videos_by_their_highest_score() -> None:
    videos = make_videos(30)
    clips = list(make_clips(videos, View(2, stride=20, hop=40)))
    for video in videos:
        video.anomalies = None
    score = scores_by_frame(videos, clips)
    maximum, label = [score[v.name].max() for v in videos], [v.label for v in videos]
    assert feed(VideoAuroc(videos), clips).compute() == pytest.approx(
        {"video_auroc": roc_auc_score(label, maximum)}, abs=1e-12
    )


def test_events_are_the_stretches_above_the_threshold() -> None:
    videos = [
        Video("a", None, 100, 10.0, 1, "Arson", [(20, 40), (90, 120)]),
        Video("b", None, 7200, None, 0, "Normal", []),
    ]
    clips = [
        one_clip(torch.tensor([[0.1, 0.7, 0.9, 0.2]]), [0, 20, 30, 40], (0, 100)),
        one_clip(torch.tensor([[0.8, 0.1, 0.95, 0.1]]), [0, 10, 5000, 5100], (0, 7200), name="b"),
    ]
    metric = feed(EventMap(videos, fps=2.0), clips)
    assert metric.compute() == {}
    metric.threshold = 0.5
    # ranked: b 0.95 false, a 0.9 the first of two true events, b 0.8 false; 2 alarms in 7200 / 2 seconds
    assert metric.compute() == pytest.approx({"event_map": 1 / 4, "false_alarms_per_hour": 2.0})
    metric.refine = lambda score: score / 2
    assert metric.compute() == {"event_map": 0.0, "false_alarms_per_hour": 0.0}
    metric.threshold = 0.25
    assert metric.compute() == pytest.approx({"event_map": 1 / 4, "false_alarms_per_hour": 2.0})


def test_false_alarms_without_a_frame_rate_are_refused() -> None:
    videos = make_videos()
    videos[3].fps = None
    metric = feed(EventMap(videos), list(make_clips(videos)))
    metric.threshold = 0.5
    with pytest.raises(ValueError, match="video_3: its frame rate"):
        metric.compute()


def judge(videos: list[Video], clips: list[tuple[Clip, Prediction]]) -> tuple[dict[str, float], list[float]]:
    metric, other = feed(FrameAuroc(videos), clips), feed(FrameAp(videos), clips)
    metric.refine = lambda score: smooth(score, 2.0)
    curves = metric.curves()  # gathered before compute, which gathers again
    values = metric.compute() | other.compute()
    assert all(np.array_equal(expand(curve), expand(curves[name])) for name, curve in other.curves().items())
    return values, np.concatenate([expand(curve) for curve in curves.values()]).tolist()


def judge_shards(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    videos = make_videos()
    clips = list(make_clips(videos))
    even = [*clips, *clips[: 2 - len(clips) % 2]]  # repeats, as DistributedSampler evens its shards out
    shards = [even[rank::2], clips[rank * 7 : 7 if rank == 0 else None], [] if rank == 0 else clips]
    torch.save([judge(videos, shard) for shard in shards], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_bits_of_one_with_repeats_uneven_shards_and_an_empty_one(tmp_path: Path) -> None:
    # a server that imports once for both, and has run nothing that a fork would leave in the middle
    multiprocessing.set_forkserver_preload(["sklearn.metrics", "vigil.metrics"])
    torch.multiprocessing.start_processes(judge_shards, (str(tmp_path),), nprocs=2, start_method="forkserver")
    videos = make_videos()
    alone = judge(videos, list(make_clips(videos)))
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [alone] * 3


@pytest.mark.parametrize(
    ("n_frames", "end", "wanted"),
    [
        (40, 40, [16, 16, 8]),
        (40, 41, [16, 16, 8]),  # cut
        (40, 56, [16, 16, 8]),
        (30, 40, [16, 14]),  # the last window lies wholly behind the axis
        (40, 57, "but the video has 40 frames"),
        (40, 33, [16, 16, 8]),  # the last score holds on
        (40, 25, [16, 24]),
        (40, 24, "1 of 1 videos have frames without a score: a"),
    ],
)
def test_with_slack_an_axis_cuts_the_scores_or_holds_the_last_one(
    n_frames: int, end: int, wanted: list[int] | str
) -> None:
    metric = FrameMetric([Video("a", n_frames=n_frames)], slack=16)
    for index, first in enumerate(range(0, end, 16)):
        metric.update(*one_clip(torch.tensor([[index / 8]]), [first], (first, min(first + 16, end))))
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=wanted):
            metric.curves()
        return
    score = np.concatenate([np.full(count, index / 8) for index, count in enumerate(wanted)])
    assert expand(metric.curves()["a"]).tolist() == score.tolist()


def test_slack_bridges_no_gap_within_a_video() -> None:
    metric = FrameMetric([Video("a", n_frames=40)], slack=16)
    for span in ((0, 16), (17, 40)):
        metric.update(*one_clip(torch.tensor([[0.5]]), [span[0]], span))
    with pytest.raises(ValueError, match="frame 16"):
        metric.curves()


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        (32, [16, 16]),
        (33, [16, 16]),
        (47, [16, 16]),  # a whole window and most of another one
        (48, "but the video has 32 frames"),
        (31, "1 of 1 videos have frames without a score: a"),  # a tail lets no score be held
    ],
)
def test_a_tail_is_scored_and_not_judged(end: int, wanted: list[int] | str) -> None:
    metric = FrameMetric([Video("a", n_frames=32)], tail=15)
    for index, first in enumerate(range(0, end, 16)):
        metric.update(*one_clip(torch.tensor([[index / 8]]), [first], (first, min(first + 16, end))))
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=wanted):
            metric.curves()
        return
    score = np.concatenate([np.full(count, index / 8) for index, count in enumerate(wanted)])
    assert expand(metric.curves()["a"]).tolist() == score.tolist()
