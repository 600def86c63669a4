from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from sklearn.metrics import top_k_accuracy_score

from vigil.class_metrics import TopK
from vigil.judging import class_numbers
from vigil.types import Clip, Prediction, Video

CATEGORIES = ["Arson", "Fighting", "Robbery", "Stealing", "Vandalism"]
VIDEOS = [Video(f"video_{index}") for index in range(5)]
VIDEOS_BY_NAME = {video.name: index for index, video in enumerate(VIDEOS)}


def make_clips(seed: int = 0) -> list[tuple[Clip, Prediction]]:
    """Random scores without ties; one to four segments of a video to a clip, three clips of each video."""
    generator = np.random.default_rng(seed)
    clips = []
    for index in range(3 * len(VIDEOS)):
        size = int(generator.integers(1, 5))
        first = torch.arange(size) * 10 + 100 * index
        span = torch.stack([first, first + 7], dim=1)
        category = [str(name) for name in generator.choice(CATEGORIES, size)]
        score = torch.from_numpy(generator.normal(size=(size, 5)).astype(np.float32))
        video = [VIDEOS[index % 5].name] * size
        frames = {"video": first[:, None]}
        clips.append(
            (Clip(video, span, frames, category=category), Prediction(torch.zeros(size, 1), class_score=score))
        )
    return clips


def feed(clips: list[tuple[Clip, Prediction]], videos: list[Video] = VIDEOS) -> TopK:
    metric = TopK(videos, CATEGORIES)
    for clip, prediction in clips:
        metric.update(clip, prediction)
    return metric


def one_clip(score: list[float], category: str = "Arson", first: int = 0) -> tuple[Clip, Prediction]:
    clip = Clip(["a"], torch.tensor([[first, 9]]), {"video": torch.tensor([[0]])}, category=[category])
    return clip, Prediction(torch.zeros(1, 1), class_score=torch.tensor([score]))


def test_top_k_equals_scikit_learn_without_ties() -> None:
    clips = make_clips()
    true = [CATEGORIES.index(name) for clip, _ in clips for name in clip.category]
    score = np.concatenate([prediction.class_score for _, prediction in clips])
    expected = {f"top{k}": top_k_accuracy_score(true, score, k=k, labels=range(5)) for k in (1, 2, 3)}
    metric = feed(clips)
    values = metric.compute()
    assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert metric.counts() == {name: true.count(index) for index, name in enumerate(CATEGORIES)}


@pytest.mark.parametrize(
    "score", [[0.5] * 5, [0.5, 0.9, 0.5, 0.5, 0.1], [0.2, 0.9, 0.2, 0.8, 0.7], [-3.0] + [-4.0] * 4]
)
def test_a_tie_counts_by_chance(score: list[float]) -> None:
    generator = np.random.default_rng(0)
    values = feed([one_clip(score)], [Video("a")]).compute()
    for k in (1, 2, 3):
        ranked = [np.lexsort((generator.random(5), -np.array(score)))[:k] for _ in range(2000)]
        assert values[f"top{k}"] == pytest.approx(np.mean([0 in best for best in ranked]), abs=0.04)


def test_compute_gives_every_number_of_classes_and_the_scaled_ones_once_a_temperature_is_set() -> None:
    clips = make_clips()
    rows = sorted(
        (VIDEOS_BY_NAME[name], *span, CATEGORIES.index(category), *score)
        for clip, prediction in clips
        for name, span, category, score in zip(
            clip.video, clip.span.tolist(), clip.category, prediction.class_score.tolist(), strict=True
        )
    )
    true, score = np.array([row[3] for row in rows]), np.array([row[4:] for row in rows], dtype=np.float32)
    video = [VIDEOS[row[0]].name for row in rows]
    metric = feed(clips)
    assert metric.compute() == class_numbers(true, score, video)
    metric.temperature = 3.0
    assert metric.compute() == class_numbers(true, score, video, 3.0)
    assert "class_nll_scaled" in metric.compute()


def test_repeats_count_once_in_any_order() -> None:
    clips = make_clips()
    once = feed(clips).compute()
    assert feed([*clips[::-1], *clips[:4]]).compute() == once
    metric = feed(clips)
    metric.reset()
    with pytest.raises(ValueError, match="5 of 5 videos have no class scores"):
        metric.counts()


def test_a_span_that_stands_for_two_samples_counts_twice() -> None:
    video = [Video("a")]
    metric = TopK(video, CATEGORIES, {("a", 0, 9): 2})
    wrong, right = [0.0, 3.0, 2.0, 1.0, 0.5], [1.0, 0.0, 0.0, 0.0, 0.0]
    assert CATEGORIES[0] == "Arson"
    for score, first in ((right, 0), (right, 0), (wrong, 5)):
        metric.update(*one_clip(score, first=first))
    assert metric.compute()["top1"] == pytest.approx(2 / 3)
    assert sum(metric.counts().values()) == 3


def test_of_two_categories_only_the_first_rank_says_anything() -> None:
    metric = TopK([Video("a")], CATEGORIES[:2])
    metric.update(*one_clip([0.1, 0.4]))
    assert {key for key in metric.compute() if key.startswith("top")} == {"top1", "top1_low", "top1_high"}
    assert metric.compute()["top1"] == 0


def test_what_cannot_be_judged_is_refused() -> None:
    metric = TopK([Video("a")], CATEGORIES)
    clip, prediction = one_clip([0.1, 0.2, 0.3, 0.4, 0.5])
    with pytest.raises(ValueError, match="a: this system gives no class scores"):
        metric.update(clip, Prediction(torch.zeros(1, 1)))
    with pytest.raises(ValueError, match="a clip of b"):
        metric.update(Clip(["b"], clip.span, clip.frame, category=["Arson"]), prediction)
    with pytest.raises(ValueError, match="category Parade; one of Arson"):
        metric.update(*one_clip([0.1, 0.2, 0.3, 0.4, 0.5], "Parade"))
    with pytest.raises(ValueError, match="no category"):
        metric.update(Clip(["a"], clip.span, clip.frame), prediction)
    for score in ([0.1, 0.2], [0.1, 0.2, 0.3, 0.4, float("nan")]):
        with pytest.raises(ValueError, match=r"finite floats \(1, 5\) are expected"):
            metric.update(*one_clip(score))
    metric.update(clip, prediction)
    metric.update(*one_clip([0.1, 0.2, 0.3, 0.4, 0.5], "Robbery"))
    with pytest.raises(ValueError, match="a: frames 0 to 9 came as Arson and as Robbery"):
        metric.compute()
    with pytest.raises(ValueError, match=r"1 of 5 videos have no class scores: video_2;"):
        feed([pair for pair in make_clips() if pair[0].video[0] != "video_2"]).compute()
    with pytest.raises(ValueError, match="at least two"):
        TopK([Video("a")], ["Arson"])
    with pytest.raises(ValueError, match="once"):
        TopK([Video("a"), Video("a")], CATEGORIES)


def judge_shards(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    clips = make_clips()
    even = [*clips, clips[0]]  # as DistributedSampler evens its shards out
    found = []
    for shard in (even[rank::2], clips if rank else []):
        metric = feed(shard)
        found.append((metric.counts(), metric.compute(), metric.scores()))
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_bits_of_one_with_a_repeat_and_an_empty_shard(tmp_path: Path) -> None:
    multiprocessing.set_forkserver_preload(["sklearn.metrics", "vigil.class_metrics"])
    torch.multiprocessing.start_processes(judge_shards, (str(tmp_path),), nprocs=2, start_method="forkserver")
    metric = feed(make_clips())
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [(metric.counts(), metric.compute(), metric.scores())] * 2


def test_what_was_scored_is_given_back_bit_for_bit_with_its_span_and_category() -> None:
    clips = make_clips()
    extremes = torch.tensor([[-0.0, 1e-45, 3.4e38, -3.4e38, 1 / 3]])
    clips.append(
        (
            Clip(["video_0"], torch.tensor([[5000, 5007]]), {"video": torch.tensor([[0]])}, category=["Robbery"]),
            Prediction(torch.zeros(1, 1), class_score=extremes),
        )
    )
    expected = {
        (name, *span, category): row
        for clip, prediction in clips
        for name, span, category, row in zip(
            clip.video, clip.span.tolist(), clip.category, prediction.class_score.tolist(), strict=True
        )
    }
    metric = feed([*clips[::-1], *clips[:3]])
    found = metric.scores()
    assert {(name, first, end, category): score for name, first, end, category, score in found} == expected
    assert len(found) == len(expected)
    assert found == sorted(found, key=lambda sample: (VIDEOS_BY_NAME[sample[0]], sample[1]))
    metric.compute()
    assert metric.scores() == found
    with pytest.raises(ValueError, match=r"1 of 5 videos have no class scores: video_2;"):
        feed([pair for pair in make_clips() if pair[0].video[0] != "video_2"]).scores()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_are_kept_in_float32_whatever_they_came_in(kind: torch.dtype) -> None:
    metric = TopK([Video("a")], CATEGORIES)
    clip, prediction = one_clip([0.1, 0.2, 0.3, 0.4, 0.5], "Vandalism")
    metric.update(clip, Prediction(prediction.frame_score, class_score=prediction.class_score.to(kind)))
    ((*_, score),) = metric.scores()
    assert score == prediction.class_score.to(kind).float()[0].tolist()
    assert metric.compute()["top1"] == 1
