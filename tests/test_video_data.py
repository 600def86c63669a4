"""How Videos become Clips and batches: whole, in an order of their own, and from the middle of an epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import Dataset

from datamodules import UcfCrime
from datamodules.clips import BagDataset, WindowDataset, join
from datamodules.loading import ResumableLoader, SeededBatches, Shard
from datamodules.video_data import VideoDataModule
from lightning_modules import MilRanker
from tests.reading_systems import EventLayers
from tests.tiny_videos import make_trainer, write_tiny_video, write_video_world
from tests.worlds import write_feature_world
from vigil.annotations_uca import uca_events
from vigil.types import Clip, Video, View
from vigil.video import read_frames

GROUPS = (range(10), range(10, 24))


def batches(rank: int = 0, world: int = 1, epoch: int = 0, seed: int = 0, size: int = 4) -> list[list[int]]:
    sampler = SeededBatches(GROUPS, size, seed, rank, world)
    sampler.set_epoch(epoch)
    assert len(list(sampler)) == len(sampler)
    return list(sampler)


def test_the_order_of_training_is_a_function_of_seed_and_epoch_alone() -> None:
    first = batches(seed=3, epoch=2)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    assert batches(seed=3, epoch=2) == first
    assert batches(seed=3, epoch=1) != first
    assert batches(seed=4, epoch=2) != first


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_processes_together_train_on_what_one_process_does(world: int) -> None:
    alone = batches(epoch=1)
    shares = [batches(rank, world, epoch=1) for rank in range(world)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert sorted(whole) == sorted(item for part in parts for item in part)
        assert len({len(part) for part in parts}) == 1


@pytest.mark.parametrize("world", [1, 2])
def test_every_batch_holds_as_many_of_either_group(world: int) -> None:
    for batch in batches(world - 1, world):
        assert [item in GROUPS[0] for item in batch] == [True] * (4 // world) + [False] * (4 // world)


def test_an_epoch_shows_every_video_and_goes_round_the_shorter_group() -> None:
    times = Counter(item for batch in batches() for item in batch)
    assert set(times) == set(range(24))
    assert sum(times[item] for item in GROUPS[0]) == sum(times[item] for item in GROUPS[1]) == 16
    assert max(times.values()) == 2


def by_length(
    lengths: list[int], rank: int = 0, world: int = 1, epoch: int = 0, size: int = 4, seed: int = 0
) -> list[list[int]]:
    sampler = SeededBatches([range(len(lengths))], size, seed, rank, world, lengths=lengths)
    sampler.set_epoch(epoch)
    return list(sampler)


LENGTHS = np.random.default_rng(0).integers(1, 40, 1002).tolist()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_batches_by_length_are_those_of_one_process_and_show_every_item_once(world: int) -> None:
    alone = by_length(LENGTHS, epoch=1)
    shares = [by_length(LENGTHS, rank, world, epoch=1) for rank in range(world)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert sorted(whole) == sorted(item for part in parts for item in part)
    times = Counter(item for batch in alone for item in batch)
    assert set(times) == set(range(1002))
    assert sum(times.values()) == 1004  # the last batch goes round


def test_batches_by_length_come_in_another_order_each_epoch_and_not_by_length() -> None:
    first, second, other = by_length(LENGTHS), by_length(LENGTHS, epoch=1), by_length(LENGTHS, seed=1)
    assert first == by_length(LENGTHS)
    assert {tuple(sorted(batch)) for batch in first}.isdisjoint(tuple(sorted(batch)) for batch in second)
    assert first != other
    longest = [max(LENGTHS[i] for i in batch) for batch in first]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


def test_a_batch_by_length_is_padded_little() -> None:
    for batches in (by_length(LENGTHS), by_length(LENGTHS, epoch=7)):
        spread = [max(LENGTHS[i] for i in batch) - min(LENGTHS[i] for i in batch) for batch in batches]
        assert np.mean(spread) < 1.5  # 40 lengths, 200 items to a run
    unsorted = SeededBatches([range(1002)], 4, 0)
    assert np.mean([np.ptp([LENGTHS[i] for i in batch]) for batch in unsorted]) > 20


def test_of_ucas_sentences_a_twentieth_is_padding_instead_of_half(shared_data: Path) -> None:
    events = uca_events(shared_data / "uca" / "json" / "UCFCrime_Train.json")
    words = [len(event.sentence.split()) for event in events]

    def padding(lengths: list[int] | None) -> float:
        batches = list(SeededBatches([range(len(words))], 16, 0, lengths=lengths))
        places = sum(len(batch) * max(words[i] for i in batch) for batch in batches)
        return 1 - sum(words[i] for batch in batches for i in batch) / places

    assert padding(None) == pytest.approx(0.543, abs=1e-3)
    assert padding(words) == pytest.approx(0.045, abs=1e-3)


def test_a_batch_size_that_the_processes_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 4 is shared by 3 processes"):
        SeededBatches(GROUPS, 4, 0, 0, 3)


@pytest.mark.parametrize(("n_items", "world"), [(7, 2), (8, 2), (3, 4), (1, 3), (5, 1)])
def test_shards_are_of_one_length_and_together_everything(n_items: int, world: int) -> None:
    shards = [list(Shard(n_items, rank, world)) for rank in range(world)]
    assert {len(shard) for shard in shards} == {len(Shard(n_items, 0, world))} == {-(-n_items // world)}
    assert {item for shard in shards for item in shard} == set(range(n_items))


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> int:
        return index


def loader(num_workers: int) -> ResumableLoader:
    return ResumableLoader(
        Numbers(),
        batch_sampler=SeededBatches(GROUPS, 4, 0),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def taken(of: ResumableLoader, epoch: int, n_batches: int | None = None) -> list[list[int]]:
    of.batch_sampler.set_epoch(epoch)
    result = []
    for batch in of:
        result.append(batch.tolist())
        if len(result) == n_batches:
            break
    return result


def test_a_loader_by_length_goes_on_in_the_middle_of_an_epoch() -> None:
    def sorted_loader() -> ResumableLoader:
        sampler = SeededBatches([range(24)], 4, 0, lengths=[i % 5 for i in range(24)])
        return ResumableLoader(Numbers(), batch_sampler=sampler)

    whole = taken(sorted_loader(), 1)
    stopped, resumed = sorted_loader(), sorted_loader()
    assert taken(stopped, 1, 2) == whole[:2]
    resumed.load_state_dict(stopped.state_dict())
    assert taken(resumed, 1) == whole[2:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_in_the_middle_of_an_epoch_with_the_batches_that_were_left(num_workers: int) -> None:
    whole = [taken(loader(num_workers), epoch) for epoch in (0, 1)]
    assert whole[0] != whole[1]
    stopped = loader(num_workers)
    assert taken(stopped, 0) == whole[0]
    assert taken(stopped, 1, 2) == whole[1][:2]
    state = stopped.state_dict()
    resumed = loader(num_workers)
    resumed.load_state_dict(state)
    assert taken(resumed, 1) == whole[1][2:]
    assert taken(resumed, 0) == whole[0]  # the next epoch is whole again
    assert taken(resumed, 1) == whole[1]


def test_the_state_counts_batches_and_begins_anew_at_the_end_of_an_epoch() -> None:
    numbers = loader(0)
    assert numbers.state_dict() == {"yielded": 0}
    states = []
    for _ in numbers:
        states.append(numbers.state_dict()["yielded"])
    assert states == [1, 2, 3, 0]
    again = loader(0)
    again.load_state_dict({"yielded": 3})
    for _ in again:
        assert again.state_dict()["yielded"] == 0  # of the fourth and last batch
    assert len(taken(again, 0)) == 4


class Record(Callback):
    def __init__(self) -> None:
        self.epochs: list[list[str]] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Clip, i: int) -> None:
        self.epochs[-1] += batch.video


def test_a_fit_shows_the_videos_in_another_order_each_epoch(tmp_path: Path) -> None:
    write_feature_world(tmp_path)
    data = UcfCrime(str(tmp_path), features=str(tmp_path / "features"), num_workers=0)
    model = MilRanker(encoder=None, feature_width=16, batch_size=4, hidden=(8, 4))
    data.watch(model)
    record = Record()
    trainer = make_trainer(tmp_path, [record], max_epochs=3, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    videos = data.known("train")
    groups = [[i for i, video in enumerate(videos) if video.label == label] for label in (1, 0)]
    for epoch, seen in enumerate(record.epochs):
        sampler = SeededBatches(groups, 4, 0)
        sampler.set_epoch(epoch)
        assert seen == [videos[i].name for batch in sampler for i in batch]
    assert len({tuple(seen) for seen in record.epochs}) == 3


def clip_of(
    name: str, height: int = 24, width: int = 32, label: int | None = 1, category: str | None = "Arson"
) -> Clip:
    generator = torch.Generator().manual_seed(len(name))
    pixels = torch.randint(0, 256, (1, 2, 3, 3, height, width), generator=generator, dtype=torch.uint8)
    return Clip(
        video=[name],
        span=torch.tensor([[0, 9]]),
        frame={"video": torch.arange(6).view(1, 2, 3)},
        pixels={"video": pixels},
        features={"other": torch.rand(1, 2, 5, generator=generator)},
        label=None if label is None else torch.tensor([label]),
        category=None if category is None else [category],
    )


def test_joined_clips_keep_their_order_and_values() -> None:
    clips = [clip_of("a"), clip_of("bb", label=0, category="Normal"), clip_of("ccc")]
    joined = join(clips)
    assert joined.video == ["a", "bb", "ccc"]
    assert joined.category == ["Arson", "Normal", "Arson"]
    assert joined.label.tolist() == [1, 0, 1]
    assert joined.span.shape == (3, 2)
    for i, clip in enumerate(clips):
        assert torch.equal(joined.pixels["video"][i], clip.pixels["video"][0])
        assert torch.equal(joined.features["other"][i], clip.features["other"][0])
        assert torch.equal(joined.frame["video"][i], clip.frame["video"][0])


def test_clips_of_unknown_label_join_without_labels() -> None:
    joined = join([clip_of("a"), clip_of("b", label=None, category=None)])
    assert joined.label is None
    assert joined.category is None


def test_pixels_of_another_size_are_resized_to_the_first() -> None:
    big = clip_of("bb", 48, 64)
    big.pixels["video"][..., :24, :] = 10  # two halves, of one value each
    big.pixels["video"][..., 24:, :] = 200
    joined = join([clip_of("a"), big]).pixels["video"]
    assert joined.shape == (2, 2, 3, 3, 24, 32)
    assert joined.dtype == torch.uint8
    assert (joined[1, ..., :10, :] == 10).all()
    assert (joined[1, ..., 14:, :] == 200).all()
    assert torch.equal(joined[0], clip_of("a").pixels["video"][0])


def test_features_of_unequal_length_get_zeros_at_their_end_and_keep_their_type() -> None:
    clips = [clip_of("a"), clip_of("bb"), clip_of("ccc")]
    for clip, length in zip(clips, (2, 5, 3), strict=True):
        clip.features = {"tokens": torch.rand(1, length, 3).bfloat16(), "count": torch.tensor([length])}
    joined = join(clips).features
    assert joined["tokens"].shape == (3, 5, 3)
    assert joined["tokens"].dtype == torch.bfloat16
    assert joined["count"].tolist() == [2, 5, 3]
    for row, clip in zip(joined["tokens"], clips, strict=True):
        length = clip.features["tokens"].shape[1]
        assert torch.equal(row[:length], clip.features["tokens"][0])
        assert (row[length:] == 0).all()


@pytest.mark.parametrize(("event_s", "n_frames"), [(1.0, 100), (0.37, 101), (0.01, 7), (9.0, 20)])
def test_stretches_cover_a_video_in_equal_seconds_and_the_last_one_is_shorter(event_s: float, n_frames: int) -> None:
    data, system = VideoDataModule("."), EventLayers()
    system.event_s = event_s
    data.watch(system)
    events = data.scoring_dataset([Video("a", Path("a.mp4"), n_frames, 29.97)]).events
    assert [event.first for event in events] == [0, *(event.end for event in events[:-1])]
    assert events[-1].end == n_frames
    lengths = [event.end - event.first for event in events]
    expected = max(1.0, event_s * 29.97)
    assert all(abs(length - expected) < 1 for length in lengths[:-1])
    assert 1 <= lengths[-1] < expected + 1
    assert len(events) == pytest.approx(max(1, n_frames / expected), abs=1)
    assert {event.sentence for event in events} == {None}


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_a_system_that_scores_no_frames_is_refused_where_frames_are_judged(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path / "cache"))
    system = EventLayers()
    data = UcfCrime(str(write_video_world(tmp_path / "videos", n_train=1)), num_workers=0)
    data.watch(system)
    with pytest.raises(ValueError, match=r"EventLayers describes events and scores no frames, UcfCrime is judged by"):
        getattr(make_trainer(tmp_path), stage)(system, datamodule=data)
    assert system.n_loads == 0


@pytest.fixture(scope="module")
def video_files(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    folder = tmp_path_factory.mktemp("videos")
    videos = []
    for name, n_frames in (("long", 75), ("short", 9), ("one", 1)):
        write_tiny_video(folder / f"{name}.mp4", n_frames, n_frames)
        videos.append(Video(name, folder / f"{name}.mp4", n_frames, 25.0, label=0, category="Normal"))
    return videos


def test_clips_for_scoring_hold_every_window_once_and_never_two_videos(video_files: list[Video]) -> None:
    view = View(frames=4, stride=2, hop=8)
    dataset = WindowDataset(video_files, {"video": view}, {}, size=3)
    seen: dict[str, list[Clip]] = {}
    for i in range(len(dataset)):
        clip = dataset[i]
        assert len(set(clip.video)) == 1
        assert 1 <= len(clip.video) <= 3
        seen.setdefault(clip.video[0], []).append(clip)
    for video in video_files:
        assert (
            torch.cat([clip.frame["video"] for clip in seen[video.name]]).tolist()
            == view.indices(video.n_frames).tolist()
        )
        assert torch.cat([clip.span for clip in seen[video.name]]).tolist() == view.spans(video.n_frames).tolist()
        every = read_frames(video.path, range(video.n_frames))
        for clip in seen[video.name]:
            for row, frames in zip(clip.pixels["video"], clip.frame["video"], strict=True):
                for picture, frame in zip(row, frames, strict=True):
                    assert torch.equal(picture, every[frame])


def test_a_bag_holds_the_frames_of_its_view(video_files: list[Video]) -> None:
    view = View(frames=2, segments=6)
    for i, clip in enumerate(BagDataset(video_files, {"video": view}, {})[i] for i in range(3)):
        assert clip.pixels["video"].shape == (1, 6, 2, 3, 24, 32)
        assert clip.frame["video"][0].tolist() == view.indices(video_files[i].n_frames).tolist()
        assert clip.span.tolist() == [[0, video_files[i].n_frames]]
        every = read_frames(video_files[i].path, range(video_files[i].n_frames))
        assert torch.equal(clip.pixels["video"][0], every[clip.frame["video"][0]])


def test_clips_of_features_answer_for_the_whole_video(tmp_path: Path) -> None:
    feature = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", feature)
    video = Video("a", n_frames=315, label=1, features=tmp_path / "a.npy")
    dataset = WindowDataset([video], {"video": View(4, 4, 16)}, {}, size=8)
    clips = [dataset[i] for i in range(len(dataset))]
    assert [len(clip.video) for clip in clips] == [8, 8, 4]
    assert torch.cat([clip.features["video"] for clip in clips])[:, 0].numpy().tolist() == feature.tolist()
    spans = torch.cat([clip.span for clip in clips]).tolist()
    assert spans == [[16 * i, 16 * i + 16] for i in range(19)] + [[304, 315]]
    bag = BagDataset([video], {"video": View(frames=4, segments=4)}, {})[0]
    for n in range(4):
        np.testing.assert_allclose(bag.features["video"][0, n], feature[5 * n : 5 * n + 5].mean(0), rtol=1e-5)


class Twelve(VideoDataModule):
    """Nine normal and three anomalous videos of a frame."""

    def videos(self, split: str) -> list[Video]:
        return [
            Video(f"v{i}", self.root / "one.mp4", label=int(i % 4 == 0)) for i in range(12 if split == "train" else 0)
        ]


@pytest.mark.parametrize(
    ("limit", "wanted"), [(None, (3, 9)), (100, (3, 9)), (6, (3, 3)), (5, (3, 2)), (2, (1, 1)), (1, (1, 0))]
)
def test_a_limit_keeps_both_labels_alike(tmp_path: Path, limit: int | None, wanted: tuple[int, int]) -> None:
    write_tiny_video(tmp_path / "one.mp4", 3, 0)
    known = Twelve(str(tmp_path), limit_videos=limit).known("train")
    labels = Counter(video.label for video in known)
    assert (labels[1], labels[0]) == wanted
    names = [int(video.name[1:]) for video in known]
    assert names == sorted(names)
    assert {video.n_frames for video in known} == {3}


def test_a_split_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"Twelve has no test video under {tmp_path}"):
        Twelve(str(tmp_path)).known("test")


def test_a_loader_that_nobody_watches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"datamodule\.watch\(system\)"):
        Twelve(str(tmp_path)).train_dataloader()


def test_training_on_one_label_alone_is_refused(tmp_path: Path) -> None:
    write_tiny_video(tmp_path / "one.mp4", 3, 0)
    data = Twelve(str(tmp_path), limit_videos=1)
    data.watch(MilRanker(encoder=None, feature_width=16))
    with pytest.raises(ValueError, match="1 and 0 are there"):
        data.train_dataloader()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_of_pixels_pairs_anomalous_and_normal_bags(tmp_path: Path, num_workers: int) -> None:
    data = UcfCrime(str(write_video_world(tmp_path, n_train=2)), num_workers=num_workers)
    model = MilRanker(encoder=None, feature_width=16, fit_view=View(frames=2, segments=3), batch_size=2)
    data.watch(model)
    clip = next(iter(data.train_dataloader()))
    assert clip.pixels["video"].shape == (4, 3, 2, 3, 24, 32)
    assert clip.label.tolist() == [1, 1, 0, 0]
    assert len(set(clip.video)) == 4
