"""How a demo scene is scripted: actors told where to be and what to do, vehicles, fire, smoke, captions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vigil.actors import (
    GONE,
    SKIN,
    Look,
    Sprite,
    person_shapes,
    place_shapes,
    pose,
    rows,
    skeleton,
    thing_shapes,
    vehicle_template,
)
from vigil.places import Place

Spans = list[tuple[int, int]]  # of an event, half-open
COLOURS = {
    "red": (196, 48, 46), "blue": (52, 84, 176), "green": (58, 128, 74), "white": (222, 222, 218),
    "grey": (128, 130, 134), "yellow": (216, 184, 64), "orange": (220, 122, 44), "purple": (118, 70, 140),
    "brown": (116, 82, 58), "black": (42, 42, 46),
}  # fmt: skip
PACE = {
    "run": 0.5,
    "punch": 0.55,
    "kick": 0.45,
    "strike": 0.5,
}  # phase per frame, of poses that are quicker than others
TROUSERS = ((46, 52, 72), (70, 72, 76), (104, 92, 72), (36, 38, 40), (86, 104, 134))
HAIR = ((30, 24, 22), (70, 46, 28), (150, 120, 70), (130, 130, 130))

# what a pose, a look or a thing in the hand shows, as an attribute of the frame
POSE_ATTRIBUTES = {
    "run": "running", "hands_up": "arms_raised", "wave": "arms_raised", "stretch": "arms_raised", "aim": "aiming",
    "punch": "punching", "kick": "kicking", "strike": "striking", "cower": "cowering", "crouch": "crouching",
    "kneel": "kneeling", "cuffed": "cuffed", "bend": "bending", "lie": "lying", "spray": "arm_forward",
    "reach": "arm_forward", "climb": "climbing", "carry": "carrying", "ride": "riding", "sweep": "sweeping",
}  # fmt: skip


@dataclass
class _Act:
    first: int
    end: int
    pose: str
    start: tuple[float, float]
    stop: tuple[float, float]
    facing: int


class Actor:
    """A person whose script is written act by act, in order of time; where no act is, nobody is seen."""

    def __init__(self, stage: Stage, look: Look, involved: bool) -> None:
        self.stage, self.look, self.involved = stage, look, involved
        self.acts: list[_Act] = []
        self.things: list[tuple[str, int, int]] = []
        self.frame, self.x, self.y, self.facing = 0, 0.0, 0.0, 1
        self.offset = float(stage.rng.uniform(0, 6.28))

    def enter(self, x: float, y: float, at: int, motion: str = "walk", side: int = 0) -> Actor:
        """Come from the left (-1), the right (1) or either edge (0) and be at (x, y) at frame `at`."""
        edge = -14.0 if (side or (-1 if self.stage.rng.random() < 0.5 else 1)) < 0 else 174.0
        duration = self._duration(abs(x - edge), y, motion)
        self.x = edge if at >= duration else x + (edge - x) * max(at, 1) / duration
        self.y, self.frame = y, max(0, at - duration)
        return self.go(x, y, motion, until=max(at, self.frame + 1))

    def go(self, x: float, y: float, motion: str = "walk", until: int | None = None, turn: bool = True) -> Actor:
        """Move to (x, y) at the motion's own speed, or so as to be there at frame `until`; turn: face that way."""
        end = (
            until
            if until is not None
            else self.frame + self._duration(np.hypot(x - self.x, y - self.y), self.y, motion)
        )
        if turn and abs(x - self.x) > 1:
            self.facing = 1 if x > self.x else -1
        self.acts.append(_Act(self.frame, end, motion, (self.x, self.y), (x, y), self.facing))
        self.frame, self.x, self.y = end, x, y
        return self

    def do(self, what: str, until: int, toward: float | None = None) -> Actor:
        """Hold a pose on the spot, facing the x given, up to frame `until`."""
        if toward is not None:
            self.facing = 1 if toward > self.x else -1
        if until > self.frame:
            here = (self.x, self.y)
            self.acts.append(_Act(self.frame, until, what, here, here, self.facing))
            self.frame = until
        return self

    def leave(self, motion: str = "walk", side: int = 0) -> Actor:
        """Go out of the picture at the nearer edge, or at the side given."""
        return self.go(-14.0 if (side or (-1 if self.x < 80 else 1)) < 0 else 174.0, self.y, motion)

    def hold(self, thing: str, first: int = 0, end: int = 1 << 30) -> Actor:
        """Have something in the hand over [first, end)."""
        self.things.append((thing, first, end))
        return self

    def _duration(self, distance: float, y: float, motion: str) -> int:
        pace = (
            {"run": 0.066, "carry": 0.024, "ride": 0.08}.get(motion, 0.029)
            * float(self.stage.place.height(y))
            * self.look.size
        )
        return max(1, round(float(distance) / pace))

    def sprites(self) -> list[Sprite]:
        """The person and what is in the hands, over all frames."""
        n_frames = self.stage.n_frames
        x, y = np.zeros(n_frames), np.full(n_frames, 100.0)
        facing, there = np.ones(n_frames), np.zeros(n_frames, bool)
        angle = np.zeros((n_frames, 10))
        attributes: dict[str, np.ndarray] = {"person": there}
        for act in self.acts:
            frames = np.arange(max(act.first, 0), min(act.end, n_frames))
            part = (frames - act.first + 1) / (act.end - act.first)
            x[frames], y[frames] = (a + (b - a) * part for a, b in zip(act.start, act.stop, strict=True))
            facing[frames], there[frames] = act.facing, True
            angle[frames] = pose(act.pose, self.offset + frames * PACE.get(act.pose, 0.27))
            if act.pose in POSE_ATTRIBUTES:
                attributes.setdefault(POSE_ATTRIBUTES[act.pose], np.zeros(n_frames, bool))[frames] = True
        for name, shown in (
            ("uniform", self.look.uniform),
            ("masked", self.look.masked),
            ("child", self.look.size < 0.75),
        ):
            if shown:
                attributes[name] = there
        weight = np.convolve(there, np.ones(5), "same")  # a pose flows into the next over five frames
        angle = np.stack(
            [np.convolve(column * there, np.ones(5), "same") / weight.clip(1) for column in angle.T], axis=-1
        )
        height = self.stage.place.height(y) * self.look.size
        body = skeleton(x, y, facing, height, angle)
        event = there & self.stage.in_event() if self.involved else np.zeros(n_frames, bool)
        found = [Sprite(_shown(person_shapes(body, height, self.look), there), y, attributes, event)]
        for thing, first, end in self.things:
            held = there & (np.arange(n_frames) >= first) & (np.arange(n_frames) < end)
            shapes = thing_shapes(thing, body["hand"], body["elbow"], facing, height)
            found.append(Sprite(_shown(shapes, held), y + 0.01, {thing: held}, event & held))
        return found


def _shown(shapes: np.ndarray, when: np.ndarray) -> np.ndarray:
    shapes[~when, :, 4] = GONE
    return shapes


@dataclass
class Stage:
    """A scene while it is written: where, how long, which generator, and what has been put on it so far."""

    rng: np.random.Generator
    place: Place
    n_frames: int
    anomalies: list[tuple[int, int]]
    actors: list[Actor] = field(default_factory=list)
    fixed: list[Sprite] = field(default_factory=list)
    captions: list[tuple[int, int, str]] = field(default_factory=list)
    light: np.ndarray = field(default_factory=lambda: np.ones(0))

    def in_event(self) -> np.ndarray:
        """Whether each frame lies in an anomaly: bool (T,)."""
        inside = np.zeros(self.n_frames, bool)
        for first, end in self.anomalies:
            inside[first:end] = True
        return inside

    def after(self, frame: int) -> np.ndarray:
        """Whether each frame is `frame` or later: bool (T,)."""
        return np.arange(self.n_frames) >= frame

    def middle(self) -> tuple[float, float]:
        """A point on the ground near the middle of the picture."""
        x, y = self.place.spots["middle"]
        return x + float(self.rng.uniform(-10, 10)), y + float(self.rng.uniform(-6, 6))

    def reach(self, y: float, part: float) -> float:
        """A length at y, given as a part of an adult's height there."""
        return float(self.place.height(y)) * part

    def colour(self) -> tuple[int, int, int]:
        """Any colour that has a name."""
        return COLOURS[str(self.rng.choice(list(COLOURS)))]

    def say(self, first: float, end: float, sentence: str) -> None:
        """Describe [first, end), as far as the scene is that long."""
        start, stop = max(0, round(first)), min(self.n_frames, round(end))
        if stop - start >= 6:  # a fifth of a second
            self.captions.append((start, stop, sentence[0].upper() + sentence[1:]))

    def somebody(
        self, involved: bool = False, shirt: str | None = None, size: float | None = None, masked: bool = False
    ) -> tuple[Actor, str]:
        """A new actor and how a sentence calls them."""
        name = shirt or str(self.rng.choice(list(COLOURS)))
        man = bool(self.rng.random() < 0.6)
        skin = SKIN[int(self.rng.integers(len(SKIN)))]
        jitter = self.rng.integers(-14, 15, 3)
        colour = tuple(int(np.clip(value + step, 20, 240)) for value, step in zip(COLOURS[name], jitter, strict=True))
        hair = (20, 20, 22) if masked else HAIR[int(self.rng.integers(len(HAIR)))]
        trousers = TROUSERS[int(self.rng.integers(len(TROUSERS)))]
        tall = size or float(self.rng.uniform(0.92, 1.05))
        actor = Actor(
            self, Look((colour[0], colour[1], colour[2]), trousers, skin, hair, tall, masked=masked), involved
        )
        self.actors.append(actor)
        noun = "masked person" if masked else "child" if tall < 0.75 else "man" if man else "woman"
        return actor, f"a {noun} in {'an' if name == 'orange' else 'a'} {name} shirt"

    def officer(self, involved: bool = False) -> Actor:
        """A new actor in uniform: dark blue with a bright band."""
        skin = SKIN[int(self.rng.integers(len(SKIN)))]
        actor = Actor(self, Look((30, 36, 70), (24, 28, 50), skin, (18, 22, 44), 1.02, uniform=True), involved)
        self.actors.append(actor)
        return actor

    def vehicle(
        self, kind: str, x: np.ndarray, y: float, facing: int, colour: tuple[int, int, int],
        angle: np.ndarray | float = 0.0, when: np.ndarray | None = None, involved: bool = False,
        lift: np.ndarray | float = 0.0, scale: float = 1.0,
    ) -> None:  # fmt: skip
        """A vehicle whose wheels stand at x (T,) and y; angle turns it about them, in radians, clockwise as seen."""
        full = np.ones(self.n_frames)
        size = float(self.place.height(y)) * scale
        origin = np.stack([x, y - lift * full], axis=-1)
        template = vehicle_template(kind, colour).copy()
        if facing < 0:
            template[:, [0, 2]] *= -1
        there = (np.abs(x - 80) < 90 + size) & (when if when is not None else full > 0)
        shapes = _shown(place_shapes(template, origin, size * full, angle * full, full), there)
        seen = there & (np.abs(x - 80) < 80 + 0.5 * size)
        name = "bicycle" if kind == "bicycle" else "vehicle"
        attributes = {name: seen, "tilted": seen & (np.abs(angle * full) > 0.12)}
        if kind == "police":
            attributes["police_car"] = seen
        self.fixed.append(Sprite(shapes, full * y, attributes, there & self.in_event() & involved))

    def thing(self, shapes: np.ndarray, y: float, when: np.ndarray, attribute: str, involved: bool = True) -> None:
        """Something that stays in place: shapes (P, 9) in the picture's units, seen at the frames `when` (T,)."""
        over_time = _shown(np.repeat(shapes[None], self.n_frames, axis=0), when)
        self.fixed.append(
            Sprite(over_time, np.full(self.n_frames, y), {attribute: when}, when & self.in_event() & involved)
        )

    def fire(self, x: float, y: float, size: float, strength: np.ndarray, attribute: str = "fire") -> None:
        """Flames on the ground at (x, y), `size` wide at strength 1; strength (T,)."""
        n_tongues, time = 18, np.arange(self.n_frames)[:, None]
        rate, offset, aside = (
            self.rng.uniform(low, high, n_tongues) for low, high in ((0.05, 0.1), (0, 1), (-0.5, 0.5))
        )
        age = (time * rate + offset) % 1
        grown = size * strength[:, None].clip(0)
        shapes = np.zeros((self.n_frames, n_tongues + 1, 9), np.float32)
        shapes[:, 1:, 0] = x + grown * (aside * (1 - 0.7 * age) + 0.06 * np.sin(time * 0.6 + 9 * aside))
        shapes[:, 1:, 1] = y - grown * (0.12 + 1.5 * age)
        shapes[:, 1:, 4] = grown * 0.36 * (1 - age)
        hot = np.array([(255, 244, 170), (255, 170, 40), (226, 70, 16)], np.float32)
        for channel in range(3):
            shapes[:, 1:, 6 + channel] = np.interp(age, (0, 0.45, 1), hot[:, channel])
        shapes[:, 0, :2], shapes[:, 0, 4], shapes[:, 0, 6:] = (x, y - size * 0.7), 2.4 * grown[:, 0], (255, 150, 50)
        shapes[..., 2:4] = shapes[..., 0:2]
        opacity = np.concatenate([0.22 * np.ones_like(grown), 0.95 * np.ones_like(age)], axis=1) * (grown > 0.5)
        self._drift(shapes, opacity, y, strength > 0.1, attribute)

    def smoke(
        self,
        x: float,
        y: float,
        size: float,
        strength: np.ndarray,
        shade: int = 60,
        attribute: str = "smoke",
        involved: bool = True,
    ) -> None:
        """Smoke that rises from (x, y), `size` wide, of grey level `shade`; strength (T,)."""
        n_puffs, time = 12, np.arange(self.n_frames)[:, None]
        rate, offset, aside = (
            self.rng.uniform(low, high, n_puffs) for low, high in ((0.012, 0.024), (0, 1), (-0.5, 0.5))
        )
        age = (time * rate + offset) % 1
        shapes = np.zeros((self.n_frames, n_puffs, 9), np.float32)
        shapes[..., 0] = x + size * (aside * (0.6 + age) + 0.5 * age)
        shapes[..., 1] = y - size * 2.6 * age
        shapes[..., 4] = size * (0.3 + 0.6 * age)
        shapes[..., 2:4] = shapes[..., 0:2]
        shapes[..., 6:] = shade + 10 * aside[:, None]
        self._drift(shapes, 0.6 * (1 - age) * strength[:, None].clip(0), y - 0.5, strength > 0.15, attribute, involved)

    def flash(
        self,
        x: np.ndarray | float,
        y: float,
        radius: float,
        colour: tuple[int, int, int],
        when: np.ndarray,
        attribute: str,
        involved: bool = True,
    ) -> None:
        """A round glow at x (T,) or a number, and y, over the frames `when` (T,)."""
        shapes = np.zeros((self.n_frames, 2, 9), np.float32)
        shapes[..., 0], shapes[..., 1] = (np.broadcast_to(value, self.n_frames)[:, None] for value in (x, y))
        shapes[..., 2:4] = shapes[..., 0:2]
        shapes[..., 4] = np.array([radius, 0.45 * radius])
        shapes[:, 0, 6:], shapes[:, 1, 6:] = colour, (255, 252, 230)
        self._drift(shapes, np.array([0.6, 1.0]) * when[:, None], 118.0, when, attribute, involved)

    def _drift(
        self, shapes: np.ndarray, opacity: np.ndarray, y: float, when: np.ndarray, attribute: str, involved: bool = True
    ) -> None:
        event = self.in_event() & involved
        self.fixed.append(
            Sprite(shapes, np.full(self.n_frames, y), {attribute: when}, event, opacity.astype(np.float32))
        )

    def sprites(self) -> list[Sprite]:
        """Everything on the stage."""
        if self.place.counter is not None:
            x0, y0, x1, y1 = self.place.counter
            middle, half = (y0 + y1) / 2, (y1 - y0) / 2
            top, till = (
                (x0, y0 + 1.5, x1, y0 + 1.5, 1.8, 1, 206, 184, 150),
                (x0 + 20, y0 - 4, x0 + 30, y0 - 4, 4.5, 1, 58, 60, 66),
            )
            desk = rows((x0, middle, x1, middle, half, 1, 122, 92, 68), top, till)
            self.thing(desk, y1, np.ones(self.n_frames, bool), "counter", involved=False)
        return self.fixed + [sprite for actor in self.actors for sprite in actor.sprites()]
