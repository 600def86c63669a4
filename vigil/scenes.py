"""The demo world: surveillance-like scenes rendered from a seed, with events, masks, captions and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from vigil.actors import Sprite
from vigil.crimes import OPEN_ENDED, REPEATABLE, SCRIPTS
from vigil.errands import ERRANDS, HARD_CASES, passers_by
from vigil.places import PLACES, light_map, make_place
from vigil.stage import Stage

CATEGORIES = tuple(SCRIPTS)
ATTRIBUTES = (
    *(f"place_{name}" for name in PLACES), "night", "infrared", "lights_flash", "one_person", "few_people", "crowd",
    "person", "child", "uniform", "masked", "vehicle", "police_car", "bicycle", "tilted", "fire", "fireball", "smoke",
    "debris", "muzzle_flash", "beacon", "broken_glass", "window", "counter", "graffiti", "gun", "stick", "crowbar",
    "spray_can", "can", "money_bag", "bag", "box", "goods", "broom", "umbrella", "ball", "running", "arms_raised",
    "aiming", "punching", "kicking", "striking", "cowering", "crouching", "kneeling", "cuffed", "bending", "lying",
    "climbing", "carrying", "arm_forward", "riding", "sweeping",
)  # fmt: skip
PRETRAINING_SEEDS = range(1_000_000, 2_000_000)  # scenes that weights/demo_deit.py has seen: no split may hold one
VERSION = 1  # of the pictures: raise it when the same seed renders otherwise


@dataclass
class Scene:
    """One fixed camera over n_frames frames, fully determined by seed, category and size.

    anomalies: half-open frame intervals. captions: (first frame, end frame, sentence). background float32 (Y, X, 3) in
    0..255; light float32 (Y, X, 3); light_level float32 (T,): the camera's exposure and the lamps over time; shift int
    (T, 2): by how many pixels y, x the wind moves the camera. colour: whether the camera sees any.
    """

    seed: int
    category: str
    place: str
    night: bool
    n_frames: int
    anomalies: list[tuple[int, int]]
    captions: list[tuple[int, int, str]]
    sprites: list[Sprite]
    background: np.ndarray
    light: np.ndarray
    light_level: np.ndarray
    shift: np.ndarray
    noise: float
    colour: bool

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame `index` as uint8 (Y, X, 3), and its mask bool (Y, X): what belongs to the event and can be seen."""
        picture, mask = self.background.copy(), np.zeros(self.background.shape[:2], bool)
        order = sorted(self.sprites, key=lambda sprite: float(sprite.depth[index]))
        unit = picture.shape[1] / 160
        for sprite in order:
            if sprite.opacity is None:
                _paint_solid(picture, mask, sprite.shapes[index], unit, bool(sprite.anomalous[index]))
        picture *= self.light * self.light_level[index]
        for sprite in order:
            if sprite.opacity is not None:
                _paint_soft(picture, mask, sprite, index, unit)
        if not self.colour:
            picture[:] = picture @ np.array([0.3, 0.59, 0.11], np.float32)[:, None]
        offset = tuple(self.shift[index])
        if any(offset):
            picture, mask = np.roll(picture, offset, (0, 1)), np.roll(mask, offset, (0, 1))
        bank = _noise_bank(*picture.shape[:2])
        roll = (index * 7919 + self.seed * 104729) % len(bank)
        grain = bank[roll, :: 1 if index % 2 else -1]
        picture += grain * self.noise
        return np.clip(picture, 0, 255).astype(np.uint8), mask

    def render(self) -> Iterator[np.ndarray]:
        """All frames in order, each uint8 (Y, X, 3)."""
        for index in range(self.n_frames):
            yield self.frame(index)[0]

    def masks(self) -> np.ndarray:
        """Where the event can be seen: bool (T, Y, X), empty outside the anomalies."""
        masks = np.zeros((self.n_frames, *self.background.shape[:2]), bool)
        for first, end in self.anomalies:
            for index in range(first, end):
                masks[index] = self.frame(index)[1]
        return masks

    def attributes(self, index: np.ndarray | None = None) -> np.ndarray:
        """What stands in the frames `index` (T,), or in all: bool (T, K), columns as ATTRIBUTES, with no event."""
        index = np.arange(self.n_frames) if index is None else index
        found = {name: np.zeros(len(index), bool) for name in ATTRIBUTES}
        found[f"place_{self.place}"][:] = True
        found["night"][:], found["infrared"][:] = self.night, not self.colour
        jump = np.abs(np.diff(self.light_level, prepend=self.light_level[:1])) > 0.12
        found["lights_flash"][:] = (np.convolve(jump, np.ones(7), "same") > 0)[index]
        people = np.zeros(len(index), int)
        for sprite in self.sprites:
            seen = sprite_boxes(sprite, index)[1]
            for name, when in sprite.tags.items():
                found[name] |= when[index] & seen
                people += (when[index] & seen) * (name == "person")
        found["one_person"], found["few_people"], found["crowd"] = people == 1, (people > 1) & (people < 6), people > 5
        return np.stack([found[name] for name in ATTRIBUTES], axis=-1)


def sprite_boxes(sprite: Sprite, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes x0, y0, x1, y1 (T, 4) in 160 x 120 units at the frames `index`, and whether the centre is seen (T,)."""
    shapes = sprite.shapes[index]
    there = shapes[..., 4] > 0
    if sprite.opacity is not None:
        there &= sprite.opacity[index] > 0.15
    radius = np.where(there, shapes[..., 4], 0)[..., None]
    low = np.where(there[..., None], np.minimum(shapes[..., 0:2], shapes[..., 2:4]) - radius, 1e6).min(axis=1)
    high = np.where(there[..., None], np.maximum(shapes[..., 0:2], shapes[..., 2:4]) + radius, -1e6).max(axis=1)
    centre = (low + high) / 2
    seen = there.any(axis=1) & (centre > 0).all(axis=1) & (centre < (160, 120)).all(axis=1)
    return np.concatenate([low, high], axis=1), seen


@cache
def _noise_bank(height: int, width: int) -> np.ndarray:
    """Eight frames of unit noise float32 (8, Y, X, 3), mostly grey; drawn anew it would cost more than the rest."""
    rng = np.random.default_rng(20)
    luma = rng.normal(0, 0.9, (8, height, width, 1))
    return (luma + rng.normal(0, 0.45, (8, height, width, 3))).astype(np.float32)


def _paint_solid(picture: np.ndarray, mask: np.ndarray, shapes: np.ndarray, unit: float, anomalous: bool) -> None:
    """Paint shapes (P, 9) over each other, with soft edges, and keep the mask in step: nearer things hide the event."""
    shapes = shapes[shapes[:, 4] > 0]
    if not len(shapes):
        return
    x0, y0, x1, y1, radius = (shapes[:, i] * unit for i in range(5))
    reach = radius + 1
    left, right = (
        int(max(0, (np.minimum(x0, x1) - reach).min())),
        int(min(picture.shape[1], (np.maximum(x0, x1) + reach).max() + 1)),
    )
    top, bottom = (
        int(max(0, (np.minimum(y0, y1) - reach).min())),
        int(min(picture.shape[0], (np.maximum(y0, y1) + reach).max() + 1)),
    )
    if left >= right or top >= bottom:
        return
    if len(shapes) > 1 and len(shapes) * (right - left) * (bottom - top) > 30_000:  # far apart: cheaper piece by piece
        for part in np.array_split(shapes, 2):
            _paint_solid(picture, mask, part, unit, anomalous)
        return
    half_x, half_y = (x1 - x0) / 2, (y1 - y0) / 2
    length = np.sqrt(half_x**2 + half_y**2)
    long = np.where(length > 1e-3, length, 1)
    along_x, along_y = np.where(length > 1e-3, half_x / long, 1)[:, None, None], (half_y / long)[:, None, None]
    x = (np.arange(left, right, dtype=np.float32) + 0.5)[None, None] - ((x0 + x1) / 2)[:, None, None]
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5)[None, :, None] - ((y0 + y1) / 2)[:, None, None]
    beyond = np.abs(x * along_x + y * along_y) - length[:, None, None]
    aside = y * along_x - x * along_y
    square = shapes[:, 5] > 0
    distance = np.sqrt(np.maximum(beyond, 0) ** 2 + aside**2)  # np.hypot takes several times as long
    if square.any():
        distance[square] = np.maximum(beyond[square] + radius[square, None, None], np.abs(aside[square]))
    cover = np.clip((0.5 + radius)[:, None, None] - distance, 0, 1)
    # the last shape that covers at least half wins; where none does, the one that covers most
    rank = (cover >= 0.5) * np.arange(1, len(shapes) + 1, dtype=np.float32)[:, None, None] + 0.5 * cover
    winner, alpha = rank.argmax(axis=0), cover.max(axis=0)
    area = picture[top:bottom, left:right]
    area += alpha[..., None] * (shapes[winner, 6:] - area)
    seen = alpha > 0.5
    if anomalous:
        mask[top:bottom, left:right] |= seen
    else:
        mask[top:bottom, left:right] &= ~seen


def _paint_soft(picture: np.ndarray, mask: np.ndarray, sprite: Sprite, index: int, unit: float) -> None:
    """Blend round puffs of fire or smoke over the picture, one after the other."""
    assert sprite.opacity is not None
    for shape, opacity in zip(sprite.shapes[index], sprite.opacity[index], strict=True):
        radius = float(shape[4]) * unit
        if opacity < 0.02 or radius < 0.5:
            continue
        x, y = float(shape[0]) * unit, float(shape[1]) * unit
        left, right = max(0, int(x - radius)), min(picture.shape[1], int(x + radius) + 2)
        top, bottom = max(0, int(y - radius)), min(picture.shape[0], int(y + radius) + 2)
        if left >= right or top >= bottom:
            continue
        squared = (np.arange(left, right, dtype=np.float32) + 0.5 - x) ** 2 + (
            (np.arange(top, bottom, dtype=np.float32) + 0.5 - y) ** 2
        )[:, None]
        alpha = float(min(opacity, 1)) * np.clip(1.3 * (1 - squared / radius**2), 0, 1)
        area = picture[top:bottom, left:right]
        area += alpha[..., None] * (shape[6:] - area)
        if sprite.anomalous[index]:
            mask[top:bottom, left:right] |= alpha > 0.3


def _spans(rng: np.random.Generator, category: str, n_frames: int, n_events: int) -> list[tuple[int, int]]:
    """When the event happens: about a third of the video, after a normal beginning."""
    if n_events == 2:
        edges = np.cumsum(rng.uniform((0.16, 0.13, 0.2, 0.13), (0.24, 0.2, 0.26, 0.2))) * n_frames
        return [(int(edges[0]), int(edges[1])), (int(edges[2]), int(edges[3]))]
    if category in OPEN_ENDED:
        return [(int(n_frames * rng.uniform(0.5, 0.7)), n_frames)]
    first = int(n_frames * rng.uniform(0.28, 0.5))
    return [(first, min(n_frames - 2, first + int(n_frames * rng.uniform(0.25, 0.4))))]


def make_scene(
    seed: int, category: str = "Normal", n_frames: int = 300, height: int = 120, width: int = 160, n_events: int = 1
) -> Scene:
    """A scene of one of the 13 UCF-Crime categories, or "Normal"; n_events 2 where the event can happen twice.

    The same arguments give the same pixels. Raises ValueError for an unknown category, fewer than 48 frames, a picture
    that is not 4:3, or two events of a category that has one.
    """
    if category not in (*CATEGORIES, "Normal"):
        raise ValueError(f"category {category!r} is unknown; expected Normal or one of {', '.join(CATEGORIES)}")
    if n_frames < 48 or height * 4 != width * 3 or width < 64:
        raise ValueError(
            f"{n_frames} frames of {width} x {height}: a scene has at least 48 frames, of 4:3, at least 64 wide"
        )
    if n_events not in (1, 2) or (n_events == 2 and category not in REPEATABLE):
        raise ValueError(f"{n_events} events of {category}: 2 are staged for {', '.join(REPEATABLE)}, 1 for the others")
    rng = np.random.default_rng([seed, (*CATEGORIES, "Normal").index(category), n_frames])
    places = SCRIPTS[category][1] if category != "Normal" else tuple(PLACES)
    place = make_place(str(rng.choice(places)), height, width, rng)
    anomalies = _spans(rng, category, n_frames, n_events) if category != "Normal" else []
    stage = Stage(rng, place, n_frames, anomalies, light=np.ones(n_frames))
    night = bool(rng.random() < 0.3)
    if category != "Normal":
        SCRIPTS[category][0](stage, anomalies)
        passers_by(stage, int(rng.integers(0, 4)))
        if rng.random() < 0.4:
            _choose(rng, ERRANDS, place.name)(stage)
    else:
        passers_by(stage, int(rng.integers(0, 3)))
        _choose(rng, HARD_CASES, place.name)(stage)
        for _ in range(int(rng.integers(1, 3))):
            _choose(rng, ERRANDS, place.name)(stage)
    if not stage.captions:
        stage.say(0, n_frames, f"nothing happens in the {place.noun} {'at night' if night else 'by day'}")
    drift = 1 + rng.uniform(0.0, 0.06) * np.sin(np.arange(n_frames) * rng.uniform(0.01, 0.04) + rng.uniform(0, 6))
    windy = not place.indoors and rng.random() < 0.25
    gusts = rng.random((n_frames, 2)) < 0.12
    colour = bool(
        rng.random() > (0.5 if night else 0.06)
    )  # an infrared camera lights the night itself, and sees no colour
    shift = gusts * rng.choice([-1, 1], (n_frames, 2)) * windy
    light = light_map(place, night, rng) * np.float32(1.0 if colour or not night else 1.3)
    level = (drift * stage.light).astype(np.float32)
    noise = float(rng.uniform(2, 4) + 2.5 * night)
    return Scene(
        seed, category, place.name, night, n_frames, anomalies, sorted(stage.captions), stage.sprites(),
        place.background, light, level, shift, noise, colour,
    )  # fmt: skip


def _choose(
    rng: np.random.Generator, scripts: dict[Callable[[Stage], None], tuple[str, ...]], place: str
) -> Callable[[Stage], None]:
    fitting = [script for script, places in scripts.items() if place in places]
    return fitting[int(rng.integers(len(fitting)))]
