"""The demo world's campus: cameras that hang for good, people on foot, and now and then what does not belong there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vigil.actors import Sprite
from vigil.crimes import arson, fighting, road_accident
from vigil.errands import passers_by
from vigil.places import PLACES, light_map, make_place
from vigil.scenes import Scene
from vigil.stage import Spans, Stage
from vigil.thefts import stealing

VERSION = 1  # of the pictures: raise it when the same shot renders otherwise
ANYWHERE = tuple(PLACES)
ON_FOOT = ("parking", "yard")  # open ground where nobody expects a vehicle


def _pass_through(stage: Stage, span: tuple[int, int], kind: str, scale: float) -> tuple[float, float]:
    """A vehicle that crosses the picture within the span: its y, and how far right of the middle it ends."""
    first, end = span
    low, high = stage.place.ground
    y = float(stage.rng.uniform(low + 0.3 * (high - low), high - 4))
    facing = int(stage.rng.choice([-1, 1]))
    half = facing * (80 + stage.reach(y, 1.05 * scale))
    x = 80 + half * (2 * (np.arange(stage.n_frames) - first) / (end - first) - 1)
    stage.vehicle(kind, x, y, facing, stage.colour(), when=stage.in_event(), involved=True, scale=scale)
    return y, half


def cycling(stage: Stage, spans: Spans) -> None:
    """Somebody rides a bicycle through."""
    first, end = spans[0]
    y, half = _pass_through(stage, spans[0], "bicycle", 1.15)
    rider, who = stage.somebody(involved=True)
    rider.frame, rider.x, rider.y = first, 80 - half, y - stage.reach(y, 0.12)
    rider.go(80 + half, rider.y, "ride", until=end)
    stage.say(first, end, f"{who} rides a bicycle among the people on foot")


def driving(stage: Stage, spans: Spans) -> None:
    """A van or a car drives where people walk."""
    kind = str(stage.rng.choice(["van", "car"]))
    _pass_through(stage, spans[0], kind, 0.9)
    stage.say(*spans[0], f"a {kind} drives slowly among the people on foot")


def _cross(stage: Stage, span: tuple[int, int], pose: str, count: int) -> str:
    """`count` people who cross the picture in a pose within the span, one behind the other."""
    first, end = span
    low, high = stage.place.ground
    side, y = int(stage.rng.choice([-1, 1])), float(stage.rng.uniform(low + 4, high - 4))
    gap = (end - first) // 5
    for number in range(count):
        actor, who = stage.somebody(involved=True)
        actor.frame, actor.x, actor.y = first + gap * number, 80 + 94.0 * side, y + 2 * number
        actor.go(80 - 94.0 * side, actor.y, pose, until=end - gap * (count - 1 - number))
    return who


def chasing(stage: Stage, spans: Spans) -> None:
    """Somebody runs after another."""
    who = _cross(stage, spans[0], "run", 2)
    stage.say(*spans[0], f"{who} chases another person, both run as fast as they can")


def skating(stage: Stage, spans: Spans) -> None:
    """Somebody glides through on inline skates, standing upright."""
    who = _cross(stage, spans[0], "stand", 1)
    stage.say(*spans[0], f"{who} glides past on inline skates")


def falling(stage: Stage, spans: Spans) -> None:
    """Somebody on foot falls, lies on the ground and gets up again."""
    first, end = spans[0]
    x, y = stage.middle()
    actor, who = stage.somebody(involved=True)
    actor.enter(x, y, at=first).do("lie", end - (end - first) // 5).do("kneel", end).leave()
    stage.say(first, end, f"{who} falls and lies on the ground for a while")


EVENTS: dict[str, tuple[Callable[[Stage, Spans], None], tuple[str, ...]]] = {
    "cycling": (cycling, ON_FOOT), "driving": (driving, ON_FOOT), "chasing": (chasing, ANYWHERE),
    "skating": (skating, ANYWHERE), "falling": (falling, ANYWHERE),
    "fighting": (fighting, ("street", "corridor", "hall", "yard")), "stealing": (stealing, ("yard", "hall", "street")),
    "fire": (arson, ("street", "parking", "yard")), "car accident": (road_accident, ("street", "parking")),
}  # fmt: skip
PASSING = ("cycling", "driving", "chasing", "skating")  # may have begun before the recording


@dataclass(frozen=True)
class Shot:
    """What one recording of a campus camera shows, fully determined.

    seed: of who walks and what happens. camera: of the view, equal for all recordings of one camera. event: of EVENTS,
    or None. walkers: how many people are on foot.
    """

    seed: int
    camera: int
    place: str
    n_frames: int
    event: str | None = None
    walkers: int = 4
    fog: bool = False
    colour: bool = True

    def scene(self) -> Scene:
        """The scene; its anomalies say when the event is staged, its masks when it can be seen.

        Raises ValueError for an event that is unknown or not staged at this place, and for fewer than 48 frames.
        """
        if self.event is not None and (self.event not in EVENTS or self.place not in EVENTS[self.event][1]):
            staged = [name for name, (_, places) in EVENTS.items() if self.place in places]
            raise ValueError(f"event {self.event!r}, place {self.place!r}: expected one of {', '.join(staged)} or None")
        if self.n_frames < 48:
            raise ValueError(f"{self.n_frames} frames: a shot has at least 48")
        view = np.random.default_rng(self.camera)
        place = make_place(self.place, 120, 160, view)
        light = light_map(place, False, view)
        rng = np.random.default_rng([self.seed, self.n_frames])
        span = self._span(rng)
        anomalies = [(max(0, span[0]), min(self.n_frames, span[1]))] if self.event else []
        stage = Stage(rng, place, self.n_frames, anomalies, light=np.ones(self.n_frames))
        if self.event:
            EVENTS[self.event][0](stage, [span])
        passers_by(stage, self.walkers)
        if not stage.captions:
            stage.say(0, self.n_frames, f"nobody is in the {place.noun}")
        sprites = stage.sprites() + ([_fog(self.n_frames)] if self.fog else [])
        level = 1 + 0.02 * np.sin(np.arange(self.n_frames) * 0.02 + rng.uniform(0, 6))
        return Scene(
            self.seed, self.event or "Normal", place.name, False, self.n_frames, anomalies, sorted(stage.captions),
            sprites, place.background, light, level.astype(np.float32), np.zeros((self.n_frames, 2), int),
            float(rng.uniform(2, 3)), self.colour,
        )  # fmt: skip

    def _span(self, rng: np.random.Generator) -> tuple[int, int]:
        """When the event is staged; before the first frame or past the last where it only passes."""
        length = int(self.n_frames * rng.uniform(0.4, 0.55))
        if self.event in PASSING:
            first = int(self.n_frames * rng.uniform(-0.15, 0.6))
            return first, first + length
        first = int(self.n_frames * rng.uniform(0.2, 0.4))
        return first, self.n_frames if self.event == "car accident" else first + length


def _fog(n_frames: int) -> Sprite:
    """Fog before everything: one pale puff far wider than the picture."""
    shape = np.array([80, 60, 80, 60, 2000, 0, 196, 200, 204], np.float32)
    shapes = np.tile(shape, (n_frames, 1, 1))
    return Sprite(shapes, np.full(n_frames, 1e3), {}, np.zeros(n_frames, bool), np.full((n_frames, 1), 0.5, np.float32))


def object_ids(scene: Scene) -> np.ndarray:
    """Which object of the event each pixel shows: uint8 (T, Y, X), 0 for none, the objects from 1 on.

    A person with what they hold is an object and so is a vehicle; fire, smoke and debris are one together. Not 0 where
    and only where the mask is True.
    """
    objects, things = _grouped(scene)
    found = np.zeros((scene.n_frames, *scene.background.shape[:2]), np.uint8)
    groups = [[i for i in group if scene.sprites[i].anomalous.any()] for group in (*objects, things)]
    for name, group in enumerate(filter(None, groups), start=1):
        alone = replace(scene, sprites=[_only(sprite, i in group) for i, sprite in enumerate(scene.sprites)])
        for index in np.flatnonzero(np.any([scene.sprites[i].anomalous for i in group], axis=0)):
            found[index][alone.frame(int(index))[1]] = name
    return found


def bystanders(scene: Scene) -> np.ndarray:
    """Where people and vehicles that have no part in the event can be seen: bool (T, Y, X)."""
    objects, _ = _grouped(scene)
    normal = {i for group in objects if not any(scene.sprites[j].anomalous.any() for j in group) for i in group}
    shown = [replace(s, anomalous=np.full(scene.n_frames, i in normal)) for i, s in enumerate(scene.sprites)]
    alone = replace(scene, sprites=shown)
    return np.stack([alone.frame(index)[1] for index in range(scene.n_frames)])


def _grouped(scene: Scene) -> tuple[list[list[int]], list[int]]:
    """Numbers of the sprites that are one person or vehicle each, and of all other sprites."""
    things: list[int] = []
    objects: list[list[int]] = []
    person: list[int] = []
    for number, sprite in enumerate(scene.sprites):  # the stage puts people last, what they hold right behind each
        if {"vehicle", "bicycle"} & sprite.tags.keys():
            objects.append([number])
        elif "person" in sprite.tags:
            person = [number]
            objects.append(person)
        else:
            (person if person and sprite.opacity is None else things).append(number)
    return objects, things


def _only(sprite: Sprite, kept: bool) -> Sprite:
    return sprite if kept or not sprite.anomalous.any() else replace(sprite, anomalous=np.zeros_like(sprite.anomalous))
