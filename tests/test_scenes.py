"""The demo world's pictures: deterministic, events where the annotation says, no give-away in motion or light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from datamodules.demo import plan
from vigil.crimes import REPEATABLE
from vigil.scenes import ATTRIBUTES, CATEGORIES, PRETRAINING_SEEDS, Scene, make_scene

ROOT = Path(__file__).parents[1]
# what a viewer would look for: at least one of these is seen at some time of the event, and not before its video's
SIGNS = {
    "Abuse": {"cowering", "striking"},
    "Arrest": {"uniform", "cuffed"},
    "Arson": {"fire", "smoke"},
    "Assault": {"kicking", "lying"},
    "Burglary": {"crowbar", "broken_glass"},
    "Explosion": {"fireball", "debris"},
    "Fighting": {"punching"},
    "RoadAccidents": {"vehicle", "debris"},
    "Robbery": {"masked", "gun", "arms_raised"},
    "Shooting": {"gun", "muzzle_flash", "lying"},
    "Shoplifting": {"goods", "bag", "crouching"},
    "Stealing": set(),
    "Vandalism": set(),
}


def inside(scene: Scene) -> np.ndarray:
    """Whether each frame is anomalous: bool (T,)."""
    return np.array([any(first <= i < end for first, end in scene.anomalies) for i in range(scene.n_frames)])


def seen(scene: Scene, index: np.ndarray) -> set[str]:
    """Attributes that are seen in any of the frames."""
    return {name for name, found in zip(ATTRIBUTES, scene.attributes(index).any(axis=0), strict=True) if found}


def test_the_thirteen_classes_are_those_of_ucf_crime() -> None:
    assert sorted(CATEGORIES) == sorted(SIGNS)


@pytest.mark.parametrize("category", ["Normal", "Explosion"])
def test_the_same_seed_gives_the_same_pixels_in_another_process(category: str) -> None:
    script = (
        "import hashlib\nfrom vigil.scenes import make_scene\n"
        f"scene = make_scene(5, {category!r}, 60)\n"
        "pixels = b''.join(scene.frame(i)[0].tobytes() for i in range(0, 60, 12))\n"
        "print(hashlib.sha256(pixels).hexdigest(), scene.captions)"
    )
    printed = [
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert printed[0] == printed[1]
    assert len(printed[0]) > 64


def test_another_seed_gives_another_scene() -> None:
    first, second = (make_scene(seed, "Normal", 60).frame(30)[0] for seed in (1, 2))
    assert (first != second).any(axis=2).mean() > 0.5


@pytest.mark.parametrize("category", CATEGORIES)
def test_an_event_looks_like_itself(category: str) -> None:
    for seed in range(3):
        scene = make_scene(seed, category, 240)
        event = np.flatnonzero(inside(scene))
        assert SIGNS[category] <= seen(scene, event), f"{category}, seed {seed}"


@pytest.mark.parametrize(
    ("category", "either"),
    [
        ("Vandalism", ({"spray_can"}, {"striking", "broken_glass"})),
        ("Stealing", ({"crowbar", "kneeling"}, {"crouching", "bag"})),
    ],
)
def test_an_event_of_two_kinds_shows_one_of_them(category: str, either: tuple[set[str], set[str]]) -> None:
    kinds = set()
    for seed in range(12):
        scene = make_scene(seed, category, 200)
        found = seen(scene, np.flatnonzero(inside(scene)))
        shown = [i for i, signs in enumerate(either) if signs <= found]
        assert shown, f"{category}, seed {seed}"
        kinds.update(shown)
    assert kinds == {0, 1}


def test_no_normal_scene_shows_a_gun_a_fire_or_a_blow() -> None:
    never = {
        "gun",
        "fire",
        "fireball",
        "muzzle_flash",
        "punching",
        "kicking",
        "striking",
        "cuffed",
        "masked",
        "graffiti",
    }
    for seed in range(30):
        scene = make_scene(seed, "Normal", 120)
        assert not seen(scene, np.arange(120)) & never, f"seed {seed}"
        assert scene.anomalies == []


def test_normal_scenes_hold_the_hard_cases() -> None:
    hard = {"crowd", "running", "lights_flash", "box", "arms_raised", "crouching", "beacon", "uniform", "smoke", "bag"}
    found = set().union(*(seen(make_scene(seed, "Normal", 160), np.arange(0, 160, 4)) for seed in range(60)))
    assert hard <= found


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_mask_is_there_in_the_event_and_nowhere_else(category: str) -> None:
    scene = make_scene(3, category, 90)
    event, masks = inside(scene), scene.masks()
    assert masks.shape == (90, 120, 160)
    assert masks.dtype == bool
    assert not masks[~event].any()
    assert not scene.frame(0)[1].any()
    area = masks[event].mean(axis=(1, 2))
    assert (area > 0).mean() > 0.9  # somebody may walk before it
    assert area.max() < 0.7


def test_the_mask_covers_the_fire() -> None:
    scene = make_scene(1, "Explosion", 120)
    frame, mask = scene.frame(scene.anomalies[0][0] + 4)
    before = scene.frame(scene.anomalies[0][0] - 1)[0]
    changed = np.abs(frame.astype(int) - before).sum(axis=2)
    assert changed[mask].mean() > 2 * changed[~mask].mean()


def test_what_stands_before_the_event_hides_its_mask() -> None:
    scene = make_scene(3, "Fighting", 90)
    index = scene.anomalies[0][0] + 5
    whole = scene.frame(index)[1].sum()
    blocker = make_scene(1, "Normal", 90).sprites[0]
    blocker.opacity, blocker.anomalous = None, np.zeros(90, bool)
    blocker.shapes = np.tile(np.array([[[0, 60, 160, 60, 60, 1, 9, 9, 9]]], np.float32), (90, 1, 1))
    blocker.depth = np.full(90, 1e6)
    scene.sprites.append(blocker)
    assert whole > 0
    assert scene.frame(index)[1].sum() == 0


@pytest.mark.parametrize("category", CATEGORIES)
def test_events_and_captions_lie_within_the_video(category: str) -> None:
    for seed, n_frames in ((1, 48), (2, 200), (3, 331)):
        scene = make_scene(seed, category, n_frames, n_events=2 if category in REPEATABLE and n_frames > 100 else 1)
        edges = [0, *(edge for interval in scene.anomalies for edge in interval), n_frames]
        assert edges[1] > 0, "a video begins normal"
        assert edges == sorted(edges)
        assert all(first < end for first, end in scene.anomalies)
        assert all(0 <= first < end <= n_frames for first, end, _ in scene.captions)
        for first, end in scene.anomalies:
            assert any(a < end and b > first for a, b, _ in scene.captions), "nobody tells of the event"


def test_frames_are_uint8_of_the_size_asked_for() -> None:
    scene = make_scene(1, "Arson", 48, height=240, width=320)
    frames = list(scene.render())
    assert len(frames) == 48
    assert {(frame.shape, frame.dtype) for frame in frames} == {((240, 320, 3), np.dtype(np.uint8))}
    assert scene.masks().shape == (48, 240, 320)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "Arsn"}, "'Arsn' is unknown; expected Normal or one of Abuse"),
        ({"n_frames": 5}, "5 frames"),
        ({"height": 100}, "4:3"),
        ({"category": "Arson", "n_events": 2}, "2 are staged for Abuse"),
    ],
)
def test_a_scene_that_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scene(1, **arguments)  # type: ignore[arg-type]


def test_no_demo_split_holds_a_pretraining_scene() -> None:
    for seed in (0, 1, 999):
        for size in ("tiny", "small", "full"):
            assert not {video.scene_seed for video in plan(seed, size)} & set(PRETRAINING_SEEDS)


def test_neither_motion_nor_brightness_gives_the_events_away() -> None:
    """The controls on the demo's own test split: one pair of frames in ten of every test video, about 5 s."""
    motion, brightness, label = [], [], []
    for video in plan(0, "full"):
        if video.split == "test":
            scene = video.scene()
            event = inside(scene)
            for index in range(1, scene.n_frames, 10):
                before, now = (scene.frame(i)[0].astype(np.float32) for i in (index - 1, index))
                motion.append(np.abs(now - before).mean())
                brightness.append(now.mean())
                label.append(event[index])
    for name, score in (("motion", motion), ("brightness", brightness)):
        value = roc_auc_score(label, score)
        print(f"frame AUROC by {name}: {value:.3f}")
        assert 0.25 < value < 0.75, f"{name}: {value:.3f}"  # a detector may be turned around
