from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional

from tests.test_regions import linked_by_loop, matched_by_loop, true_regions
from vigil.pixel_metrics import PixelAuroc, PixelMetric
from vigil.region_metric import RegionMetric
from vigil.regions import area_to_one
from vigil.types import Clip, Prediction, Video

Pair = tuple[Clip, Prediction]
SIZE = (9, 12)
KINDS = {"auroc": PixelAuroc, "regions": lambda videos, **options: RegionMetric(videos, levels=16, **options)}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def blobs(n_frames: int, seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Maps (T, Y, X) in [0, 1] that change little from frame to frame."""
    raw = gaussian_filter(np.random.default_rng(seed).random((n_frames, *size)), (0.8, 1.0, 1.0))
    return (raw - raw.min()) / np.ptp(raw)


def masked(name: str, masks: np.ndarray) -> Video:
    return Video(name, None, len(masks), 25.0, int(masks.any()), masks=lambda frames: masks[frames])


def make_videos() -> list[Video]:
    """Components, objects, objects with a gap and holes, normal with masks, normal without; lengths no window fits."""
    component = blobs(11, 1) > 0.75
    component[3] = False
    objects = np.where(blobs(14, 2) > 0.8, np.random.default_rng(2).integers(1, 3, (14, *SIZE)), 0)
    gap = np.zeros((9, *SIZE), dtype=np.uint8)
    gap[:3, 2:6, 3:8] = gap[6:, 3:6, 4:9] = 255
    plain = np.zeros((7, *SIZE), dtype=bool)
    videos = [masked(name, m) for name, m in zip("abcd", (component, objects, gap, plain), strict=True)]
    return [*videos, Video("e", None, 6, 25.0, 0)]


def make_clips(videos: list[Video], size: tuple[int, int] = SIZE, before: int = 2) -> list[Pair]:
    """Two windows of five frames to a clip, every second one sampled, padded, beginning `before` frames early."""
    clips = []
    for seed, video in enumerate(videos):
        score = blobs(video.n_frames, seed + 10, size)
        if size == SIZE:
            score = (score + gaussian_filter(np.float64(masks_by_frame(video) > 0), (0.5, 1, 1))) / 2
        score = np.float32(np.round(score * 255) * 257 / 65535)  # on bins, with ties
        starts = list(range(0, video.n_frames, 5))
        for at in range(0, len(starts), 2):
            span = [[first, min(first + 5, video.n_frames)] for first in starts[at : at + 2]]
            frame = np.stack([np.clip(np.arange(a - before, a + 5, 2), max(0, a - before), b - 1) for a, b in span])
            clip = Clip([video.name] * len(span), torch.tensor(span), {"video": torch.from_numpy(frame)})
            clips.append((clip, Prediction(torch.zeros(frame.shape), torch.from_numpy(score[frame]))))
    return clips


def maps_by_frame(videos: list[Video], clips: list[Pair]) -> dict[str, np.ndarray]:
    """From the words: the map of the last sampled frame up to each frame, or the first one of its window."""
    found = {}
    for clip, prediction in clips:
        for row, (name, (first, end)) in enumerate(zip(clip.video, clip.span.tolist(), strict=True)):
            frame = clip.frame["video"][row].tolist()
            for t in range(first, end):
                reached = [f for f in frame if f <= t] or frame[:1]
                found[name, t] = prediction.pixel_score[row, frame.index(reached[-1])].numpy()
    return {video.name: np.stack([found[video.name, t] for t in range(video.n_frames)]) for video in videos}


def masks_by_frame(video: Video) -> np.ndarray:
    return video.masks(np.arange(video.n_frames)) if video.masks else np.zeros((video.n_frames, *SIZE), dtype=bool)


def feed(metric: PixelMetric, clips: list[Pair]) -> PixelMetric:
    for clip, prediction in clips:
        metric.update(clip, prediction)
    return metric


def pooled(videos: list[Video], score: dict[str, np.ndarray]) -> dict[str, float]:
    label = np.concatenate([(masks_by_frame(video) > 0).ravel() for video in videos])
    value = np.concatenate([score[video.name].ravel() for video in videos])
    return {"pixel_auroc": roc_auc_score(label, value), "pixel_ap": average_precision_score(label, value)}


def whole(video: Video, score: np.ndarray) -> Pair:
    n_frames = len(score)
    clip = Clip([video.name], torch.tensor([[0, n_frames]]), {"video": torch.arange(n_frames)[None]})
    return clip, Prediction(torch.zeros(1, n_frames), torch.from_numpy(np.float32(score))[None])


@pytest.mark.parametrize("before", [-1, 0, 2, 3])
def test_pixel_auroc_and_ap_equal_scikit_learn_on_every_pixel_of_every_frame(before: int) -> None:
    videos = make_videos()
    clips = make_clips(videos, before=before)
    metric = feed(PixelAuroc(videos), clips)
    assert metric.compute() == pytest.approx(pooled(videos, maps_by_frame(videos, clips)), abs=1e-12)
    positive, negative = metric.counts().T
    assert positive.shape == (65536,)
    assert positive.sum() == sum((masks_by_frame(video) > 0).sum() for video in videos)
    assert positive.sum() + negative.sum() == sum(video.n_frames for video in videos) * 9 * 12


def criteria_by_loop(videos: list[Video], score: dict[str, np.ndarray], levels: int) -> dict[str, float]:
    rates, regions, tracks = [], [], []
    for level in range(1, levels + 1):
        false, found, of_track = 0, [], {}
        for video in videos:
            masks = masks_by_frame(video)
            linked = linked_by_loop(masks) if masks.dtype == bool else None
            for t, mask in enumerate(masks):
                count, detected = matched_by_loop(score[video.name][t], mask, level / levels)
                names = linked[t] if linked else sorted(set(mask[mask > 0].tolist()))
                assert len(names) == len(true_regions(mask)) == len(detected)
                false += count
                found += detected
                for name, one in zip(names, detected, strict=True):
                    of_track.setdefault((video.name, name), []).append(one)
        rates.append(false / sum(video.n_frames for video in videos))
        regions.append(np.mean(found))
        tracks.append(np.mean([np.mean(ones) >= 0.1 for ones in of_track.values()]))
    return {
        "rbdc": area_to_one(np.array(rates), np.array(regions)),
        "tbdc": area_to_one(np.array(rates), np.array(tracks)),
    }


@pytest.mark.parametrize("before", [0, 2])
def test_rbdc_and_tbdc_equal_a_loop_over_regions_and_tracks(before: int) -> None:
    videos = make_videos()
    clips = make_clips(videos, before=before)
    values = feed(RegionMetric(videos, levels=16), clips).compute()
    assert values == pytest.approx(criteria_by_loop(videos, maps_by_frame(videos, clips), 16), abs=1e-12)
    assert 0 < values["rbdc"] < values["tbdc"] < 1


def test_the_masks_themselves_give_one_and_silence_nothing() -> None:
    videos = make_videos()
    perfect = [whole(video, masks_by_frame(video) > 0) for video in videos]
    silent = [whole(video, np.zeros((video.n_frames, *SIZE))) for video in videos]
    assert feed(PixelAuroc(videos), perfect).compute() == {"pixel_auroc": 1.0, "pixel_ap": 1.0}
    assert feed(RegionMetric(videos), silent).compute() == {"rbdc": 0.0, "tbdc": 0.0}
    assert feed(PixelAuroc(videos), silent).compute()["pixel_auroc"] == 0.5
    apart = [video for video in videos if video.name != "b"]  # where objects touch, their components are not theirs
    kept = [pair for pair in perfect if pair[0].video != ["b"]]
    assert feed(RegionMetric(apart), kept).compute() == {"rbdc": 1.0, "tbdc": 1.0}


def test_a_constant_map_is_one_region_that_is_false_where_little_is_anomalous() -> None:
    masks = np.zeros((8, *SIZE), dtype=bool)
    masks[:4, :6, :6] = True  # a third of the frame, in half of the frames
    video = masked("a", masks)
    values = feed(RegionMetric([video]), [whole(video, np.full(masks.shape, 0.4))]).compute()
    assert values == {"rbdc": 0.75, "tbdc": 0.75}  # from (0, 0) to (0.5, 1), then flat


def test_objects_are_regions_and_tracks_across_a_gap_where_components_are_not() -> None:
    numbered = np.zeros((24, *SIZE), dtype=np.uint8)
    numbered[:12, 1:4, 1:4] = numbered[:12, 6:8, 6:8] = 3  # two parts of one object
    numbered[20:, 1:4, 1:4] = 3  # seen again after eight frames
    score = np.zeros(numbered.shape)
    score[0, 1:4, 1:4] = 1  # found in one frame, and there in its larger part only: IoU 9 / 13
    objects, components = masked("a", numbered), masked("a", numbered > 0)
    # one region of 16, which is one track and less than a tenth of it
    assert feed(RegionMetric([objects]), [whole(objects, score)]).compute() == {"rbdc": 1 / 16, "tbdc": 0.0}
    # one region of 28; three tracks of 12, 12 and 4, and none has a tenth of its regions found
    assert feed(RegionMetric([components]), [whole(components, score)]).compute() == {"rbdc": 1 / 28, "tbdc": 0.0}
    score[20, 1:4, 1:4] = 1
    assert feed(RegionMetric([objects]), [whole(objects, score)]).compute() == {"rbdc": 2 / 16, "tbdc": 1.0}
    assert feed(RegionMetric([components]), [whole(components, score)]).compute() == {"rbdc": 2 / 28, "tbdc": 1 / 3}


@every_kind
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_repeats_and_other_orders_change_no_bit(make: Callable[..., PixelMetric]) -> None:
    videos = make_videos()
    clips = make_clips(videos)
    metric = feed(make(videos), clips)
    once = metric.compute()
    shuffled = [clips[i] for i in np.random.default_rng(0).permutation(len(clips))]
    assert feed(make(videos), [*shuffled, *clips[:3]]).compute() == once
    metric.reset()
    with pytest.raises(ValueError, match="5 of 5 videos have frames without a score"):
        metric.compute()
    assert feed(metric, clips).compute() == once


def test_maps_are_brought_to_the_masks_or_both_to_a_size() -> None:
    videos = make_videos()
    clips = make_clips(videos, size=(5, 7))
    score = maps_by_frame(videos, clips)

    def resized(value: np.ndarray, size: tuple[int, int], **how: object) -> np.ndarray:
        return functional.interpolate(torch.from_numpy(np.float32(value))[:, None], size, **how)[:, 0].numpy()

    native = {name: resized(value, SIZE, mode="bilinear", align_corners=False) for name, value in score.items()}
    assert feed(PixelAuroc(videos), clips).compute() == pytest.approx(pooled(videos, native), abs=1e-4)  # binned
    for size in ((4, 5), (23, 17)):
        label = np.concatenate([(resized(masks_by_frame(video), size) > 0).ravel() for video in videos])
        value = np.concatenate([resized(score[video.name], size).ravel() for video in videos])
        assert feed(PixelAuroc(videos, size), clips).compute() == pytest.approx(
            {"pixel_auroc": roc_auc_score(label, value), "pixel_ap": average_precision_score(label, value)}, abs=1e-12
        )
        small = [masked(v.name, resized(masks_by_frame(v), size).astype(masks_by_frame(v).dtype)) for v in videos]
        mapped = [whole(video, resized(score[video.name], size)) for video in small]
        assert feed(RegionMetric(videos, size), clips).compute() == feed(RegionMetric(small), mapped).compute()


def test_a_system_without_pixel_scores_has_no_keys() -> None:
    videos = make_videos()
    clips = make_clips(videos)
    bare = [(clip, Prediction(prediction.frame_score)) for clip, prediction in clips]
    metric = feed(PixelAuroc(videos), bare + bare)
    assert metric.compute() == {}
    assert metric.counts() is None
    mixed = [pair for pair in bare if pair[0].video[0] in "bd"] + [p for p in clips if p[0].video[0] not in "bd"]
    with pytest.raises(ValueError, match=r"2 videos \(b, d\) came without pixel scores"):
        feed(PixelAuroc(videos), mixed).compute()


def test_missing_frames_and_overlaps_are_named() -> None:
    videos = make_videos()
    clips = make_clips(videos)
    with pytest.raises(ValueError, match=r"1 of 5 videos have frames without a score: a \(frame 0\)"):
        feed(PixelAuroc(videos), clips[1:]).compute()
    late = replace(clips[0][0], span=clips[0][0].span + torch.tensor([[3, 1]]))
    late.frame["video"] = late.frame["video"].clamp(min=3)
    with pytest.raises(ValueError, match=r"a: windows of the frames 0 to 5 and 3 to 6 .* overlap"):
        feed(PixelAuroc(videos), [clips[0], (late, clips[0][1])])


def test_frames_behind_the_axis_are_cut_up_to_slack() -> None:
    videos = make_videos()
    clips = make_clips(videos)
    wanted = feed(PixelAuroc(videos), clips).compute()
    span = clips[-1][0].span.clone()
    span[-1, 1] += 2
    longer = [*clips[:-1], (replace(clips[-1][0], span=span), clips[-1][1])]
    assert feed(PixelAuroc(videos, slack=2), longer).compute() == wanted
    with pytest.raises(ValueError, match=r"e: a score for the frames 5 to 8 .* the video has 6 frames"):
        feed(PixelAuroc(videos, slack=1), longer)


def test_what_cannot_be_judged_is_refused() -> None:
    videos = make_videos()
    metric = PixelAuroc(videos)
    clip, prediction = make_clips(videos)[0]
    score = prediction.pixel_score
    assert score is not None
    for value in (float("nan"), -0.25, 1.5):
        wrong = score.clone()
        wrong[1, 2, 4, 3] = value
        with pytest.raises(ValueError, match=rf"a: the score of frame 7 at row 4, column 3 is {value}"):
            metric.update(clip, replace(prediction, pixel_score=wrong))
    for wrong, message in (
        (score.double(), "pixel scores are torch.float64"),
        (score[:, 1:], "fits no stream"),
        (score[0], "fits no stream"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.update(clip, replace(prediction, pixel_score=wrong))
    with pytest.raises(ValueError, match="do not ascend"):
        metric.update(replace(clip, frame={"video": clip.frame["video"].flip(1)}), prediction)
    with pytest.raises(ValueError, match="a clip of z"):
        metric.update(replace(clip, video=["z", "z"]), prediction)
    unmasked = [videos[0], Video("y", None, 5, label=1), Video("z", None, 5)]
    with pytest.raises(ValueError, match=r"2 videos \(y, z\) came without masks"):
        PixelAuroc(unmasked).update(clip, prediction)
    for masks in (np.zeros(SIZE, dtype=bool), np.zeros((5, *SIZE)), np.full((5, *SIZE), -1)):
        with pytest.raises(ValueError, match="a: "):
            PixelAuroc([replace(videos[0], masks=lambda _, masks=masks: masks)]).update(clip, prediction)
    for options in ({"levels": 0}, {"alpha": 0.0}, {"beta": 1.5}, {"size": (0, 4)}):
        with pytest.raises(ValueError, match="expected"):
            RegionMetric(videos, **options)
    with pytest.raises(ValueError, match="once"):
        PixelAuroc([videos[0], videos[0]])


def together(metrics: list[PixelMetric]) -> dict[str, float]:
    """What `compute` says on the first of several processes, whose states are handed over instead of sent."""
    for metric in metrics:
        metric.sync(distributed_available=lambda: False)
    states = iter([[getattr(metric, state)[0] for metric in metrics] for state in ("windows", "settled", "latest")])
    metrics[0].distributed_available_fn = lambda: True
    metrics[0].dist_sync_fn = lambda _tensor, group: next(states)
    return metrics[0].compute()


@every_kind
@pytest.mark.parametrize("n_processes", [2, 3, 4, 9, 40])
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_shards_evened_out_by_repeats_give_the_bits_of_one_process(
    make: Callable[..., PixelMetric], n_processes: int
) -> None:
    videos = make_videos()
    clips = make_clips(videos)
    alone = feed(make(videos), clips).compute()
    even = (clips * n_processes)[: -(-len(clips) // n_processes) * n_processes]  # as DistributedSampler does
    assert len(even) == len(clips) or len(clips) % n_processes
    assert together([feed(make(videos), even[rank::n_processes]) for rank in range(n_processes)]) == alone
    assert together([make(videos), feed(make(videos), clips[4:]), feed(make(videos), clips[:4])]) == alone


def test_other_repeats_across_processes_are_refused() -> None:
    videos = make_videos()
    clips = make_clips(videos)

    def shards(*parts: list[Pair]) -> list[PixelMetric]:
        return [feed(PixelAuroc(videos), part) for part in parts]

    with pytest.raises(ValueError, match="a: two processes judged the frames from 0 on"):
        together(shards(clips[:4], [clips[0], *clips[4:]]))
    half, prediction = clips[0]
    half = replace(half, video=["a"], span=half.span[:1], frame={"video": half.frame["video"][:1]})
    part = replace(prediction, pixel_score=prediction.pixel_score[:1])
    with pytest.raises(ValueError, match="a: two processes judged the frames from 0 on"):
        together(shards([(half, part), *clips[1:]], [clips[0]]))
    late = replace(half, span=torch.tensor([[4, 5]]))
    with pytest.raises(ValueError, match=r"a: windows of the frames 0 to 5 and 4 to 5 .* overlap"):
        together(shards(clips, [(late, part)]))


def judge(videos: list[Video], clips: list[Pair]) -> tuple[dict[str, float], list[int], list[int]]:
    metric, other = feed(PixelAuroc(videos), clips), feed(RegionMetric(videos), clips)
    positive, negative = metric.counts().T  # gathered before compute
    return metric.compute() | other.compute(), positive.tolist(), negative.tolist()


def judge_shards(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    videos = make_videos()
    clips = make_clips(videos)
    even = [*clips, *clips[: len(clips) % 2]]
    found = [judge(videos, shard) for shard in (even[rank::2], clips if rank else [])]
    bare = [(clip, Prediction(prediction.frame_score)) for clip, prediction in clips]
    torch.save([*found, feed(PixelAuroc(videos), bare[rank::2]).compute()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_bits_of_one_with_a_repeat_and_an_empty_shard(tmp_path: Path) -> None:
    multiprocessing.set_forkserver_preload(["sklearn.metrics", "vigil.region_metric"])
    torch.multiprocessing.start_processes(judge_shards, (str(tmp_path),), nprocs=2, start_method="forkserver")
    videos = make_videos()
    clips = make_clips(videos)
    assert len(clips) % 2  # so that one is repeated
    alone = judge(videos, clips)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [alone, alone, {}]
