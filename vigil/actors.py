"""What moves in the demo world: people, vehicles, things, fire and smoke, as coloured shapes over time.

A shape is a row of 9 numbers: the axis x0, y0, x1, y1, its radius (not positive: not there), 1 for square ends and 0
for round ones, and red, green, blue in 0..255. Lengths are in units of a 160 x 120 picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

GONE = -9.0  # the radius of a shape that is not there
JOINTS = ("lean", "arm", "elbow", "far_arm", "far_elbow", "leg", "knee", "far_leg", "far_knee", "roll")
SKIN = ((224, 172, 140), (198, 134, 96), (141, 85, 56), (96, 60, 42))


@dataclass
class Sprite:
    """One thing over all T frames.

    shapes (T, P, 9), painted in order; depth (T,): nearer the camera is larger and painted later. tags {attribute:
    bool (T,)}. anomalous bool (T,): when its pixels belong to the event. opacity: None for a solid, (T, P) for fire and
    smoke, which are painted after the light, since they shine or drift before it.
    """

    shapes: np.ndarray
    depth: np.ndarray
    tags: dict[str, np.ndarray] = field(default_factory=dict)
    anomalous: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    opacity: np.ndarray | None = None


@dataclass(frozen=True)
class Look:
    """How a person looks; size is the height as a part of an adult's."""

    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    size: float = 1.0
    uniform: bool = False
    masked: bool = False


def rows(*shape: tuple[float, ...]) -> np.ndarray:
    """Shapes (P, 9) from tuples."""
    return np.array(shape, np.float32).reshape(-1, 9)


def pose(name: str, phase: np.ndarray) -> np.ndarray:
    """Joint angles (T, 10) in radians, 0 hanging down, positive forward, of the named pose at a phase (T,)."""
    angles = dict.fromkeys(JOINTS, np.zeros_like(phase))
    for joint, value in POSES[name](np.sin(phase), np.cos(phase)).items():
        angles[joint] = np.zeros_like(phase) + value
    return np.stack([angles[joint] for joint in JOINTS], axis=-1)


def _stride(swing: float, lift: float, lean: float, elbow: float) -> Callable[..., dict[str, np.ndarray | float]]:
    def angles(sin: np.ndarray, cos: np.ndarray) -> dict[str, np.ndarray | float]:
        return {
            "lean": lean, "leg": swing * sin, "far_leg": -swing * sin, "arm": -0.8 * swing * sin,
            "far_arm": 0.8 * swing * sin, "knee": -lift * (0.6 + cos).clip(0), "far_knee": -lift * (0.6 - cos).clip(0),
            "elbow": elbow, "far_elbow": elbow,
        }  # fmt: skip

    return angles


_STAND: dict[str, np.ndarray | float] = {"leg": 0.1, "far_leg": -0.1, "arm": 0.05, "far_arm": -0.05}
_CROUCH: dict[str, np.ndarray | float] = {"lean": 0.7, "leg": 1.5, "knee": -2.3, "far_leg": 1.2, "far_knee": -2.3}
_KNEEL: dict[str, np.ndarray | float] = {"lean": 0.1, "leg": 0.1, "knee": -1.6, "far_leg": 0.1, "far_knee": -1.6}

# phase advances by one cycle in about 24 frames; sin and cos of it drive what repeats
POSES: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray | float]]] = {
    "stand": lambda s, c: _STAND | {"arm": 0.05 + 0.04 * s},
    "walk": _stride(0.5, 0.5, 0.05, 0.25),
    "run": _stride(0.95, 1.0, 0.3, 1.5),
    "talk": lambda s, c: _STAND | {"arm": 0.5 + 0.25 * s, "elbow": 1.2 + 0.3 * c},
    "wave": lambda s, c: _STAND | {"arm": 2.7 + 0.3 * s, "elbow": 0.4 * c},
    "stretch": lambda s, c: _STAND | {"arm": 1.6 + 1.3 * s, "far_arm": 1.6 + 1.3 * s, "lean": 0.1 * c},
    "reach": lambda s, c: _STAND | {"arm": 1.6 + 0.35 * s, "elbow": 0.2, "lean": 0.15},
    "carry": lambda s, c: _stride(0.4, 0.5, -0.08, 1.1)(s, c) | {"arm": 0.45, "far_arm": 0.5},
    "hands_up": lambda s, c: _STAND | {"arm": 2.8 + 0.1 * s, "far_arm": 3.4, "elbow": 0.2, "far_elbow": -0.2},
    "aim": lambda s, c: _STAND | {"leg": 0.35, "far_leg": -0.35, "arm": 1.57 + 0.03 * s, "far_arm": 1.45, "lean": 0.05},
    "punch": lambda s, c: {
        "lean": 0.25 + 0.2 * s, "leg": 0.5, "far_leg": -0.5, "knee": -0.2, "far_knee": -0.3,
        "arm": 1.1 + 0.55 * np.tanh(3 * s), "elbow": 1.1 - 1.1 * np.tanh(3 * s),
        "far_arm": 1.1 - 0.55 * np.tanh(3 * s), "far_elbow": 1.1 + 1.1 * np.tanh(3 * s),
    },
    "kick": lambda s, c: {
        "lean": -0.25, "leg": 0.5 + 0.9 * s, "knee": -0.7 + 0.7 * s, "far_leg": -0.1, "arm": -0.5, "far_arm": 0.9,
    },
    "strike": lambda s, c: {
        "lean": 0.3 + 0.2 * s, "leg": 0.4, "far_leg": -0.4,
        "arm": 2.0 - 1.0 * np.tanh(2 * s), "elbow": 0.5, "far_arm": 0.6,
    },
    "cower": lambda s, c: _CROUCH | {"lean": 1.1, "arm": 2.3 + 0.1 * s, "elbow": 1.3, "far_arm": 2.5, "far_elbow": 1.3},
    "crouch": lambda s, c: _CROUCH | {"arm": 0.6 + 0.2 * s, "far_arm": 0.4, "elbow": 0.4},
    "kneel": lambda s, c: _KNEEL | {"lean": 0.35, "arm": 0.7 + 0.3 * s, "elbow": 0.6, "far_arm": 0.6, "far_elbow": 0.6},
    "cuffed": lambda s, c: _KNEEL | {
        "lean": 0.3 + 0.04 * s, "arm": -0.7, "elbow": -0.5, "far_arm": -0.7, "far_elbow": -0.5,
    },
    "bend": lambda s, c: _STAND | {
        "lean": 1.1 + 0.08 * s, "arm": 0.7 + 0.15 * s, "far_arm": 0.5, "elbow": 0.3, "far_elbow": 0.3,
    },
    "lie": lambda s, c: {"roll": -1.5, "arm": 0.5 + 0.06 * s, "far_arm": 2.6, "leg": 0.25, "knee": -0.6, "elbow": 0.5},
    "spray": lambda s, c: _STAND | {"arm": 1.75 + 0.5 * s, "elbow": 0.25 * c, "lean": 0.05},
    "climb": lambda s, c: {
        "lean": 0.9, "leg": 1.5, "knee": -1.4, "far_leg": -0.1, "arm": 1.9, "far_arm": 1.7 + 0.2 * s,
    },
    "sweep": lambda s, c: _STAND | {
        "lean": 0.3, "arm": 0.6 + 0.3 * s, "far_arm": 0.8 + 0.3 * s, "elbow": 0.4, "far_elbow": 0.2,
    },
    "ride": lambda s, c: {
        "lean": 0.6, "leg": 1.0 + 0.4 * s, "knee": -1.1, "far_leg": 1.0 - 0.4 * s, "far_knee": -1.1,
        "arm": 0.9, "far_arm": 0.9,
    },
}  # fmt: skip


def skeleton(
    x: np.ndarray, y: np.ndarray, facing: np.ndarray, height: np.ndarray, angle: np.ndarray
) -> dict[str, np.ndarray]:
    """Joint positions (T, 2) by name; x, y (T,) where the body meets the ground, angle (T, 10) as JOINTS."""
    joint = dict(zip(JOINTS, angle.T, strict=True))

    def limb(base: np.ndarray, direction: np.ndarray, length: float) -> np.ndarray:
        return base + length * np.stack([np.sin(direction), np.cos(direction)], axis=-1)

    roll = joint["roll"]
    hip = np.zeros((len(x), 2))
    spine = np.pi - joint["lean"] + roll  # up, tilted forward by the lean
    neck = limb(hip, spine, 0.31)
    body = {"hip": hip, "neck": neck, "head": limb(neck, spine - 0.5 * joint["lean"] * (roll == 0), 0.105)}
    shoulder = limb(hip, spine, 0.28)
    for prefix in ("", "far_"):
        body[prefix + "shoulder"] = shoulder
        bent = joint[prefix + "arm"] - 0.4 * joint["lean"] + roll
        body[prefix + "elbow"] = limb(shoulder, bent, 0.165)
        body[prefix + "hand"] = limb(body[prefix + "elbow"], bent + joint[prefix + "elbow"], 0.165)
        thigh = joint[prefix + "leg"] + roll
        body[prefix + "knee"] = limb(hip, thigh, 0.25)
        body[prefix + "foot"] = limb(body[prefix + "knee"], thigh + joint[prefix + "knee"], 0.25)
    lowest = np.max([point[:, 1] for point in body.values()], axis=0)
    for name, point in body.items():
        body[name] = np.stack([x + facing * height * point[:, 0], y + height * (point[:, 1] - lowest)], axis=-1)
    return body


def person_shapes(body: dict[str, np.ndarray], height: np.ndarray, look: Look) -> np.ndarray:
    """Shapes (T, 16, 9) of a person from the joints of `skeleton`."""
    dark = tuple(int(0.72 * value) for value in look.shirt)
    far = tuple(int(0.72 * value) for value in look.trousers)
    head = (22, 22, 24) if look.masked else look.skin
    shoe = (40, 36, 34)
    foot = {side: body[side + "foot"] for side in ("", "far_")}
    crown = body["head"] + 0.35 * (body["head"] - body["neck"])
    belt = body["hip"] + 0.55 * (body["neck"] - body["hip"])
    band = (225, 240, 60) if look.uniform else look.shirt
    parts: list[tuple[np.ndarray, np.ndarray, float, tuple[int, ...]]] = [
        (body["far_shoulder"], body["far_elbow"], 0.036, dark), (body["far_elbow"], body["far_hand"], 0.03, dark),
        (body["hip"], body["far_knee"], 0.05, far), (body["far_knee"], foot["far_"], 0.038, far),
        (foot["far_"], foot["far_"], 0.035, shoe), (body["hip"], body["knee"], 0.052, look.trousers),
        (body["knee"], foot[""], 0.04, look.trousers), (foot[""], foot[""], 0.037, shoe),
        (body["hip"], body["neck"], 0.085, look.shirt), (belt, belt, 0.083, band), (crown, crown, 0.068, look.hair),
        (body["head"], body["head"], 0.066, head), (body["far_hand"], body["far_hand"], 0.032, look.skin),
        (body["shoulder"], body["elbow"], 0.038, look.shirt), (body["elbow"], body["hand"], 0.032, look.shirt),
        (body["hand"], body["hand"], 0.034, look.skin),
    ]  # fmt: skip
    shapes = np.zeros((len(height), len(parts), 9), np.float32)
    for i, (start, end, radius, colour) in enumerate(parts):
        shapes[:, i, 0:2], shapes[:, i, 2:4], shapes[:, i, 4], shapes[:, i, 6:] = start, end, radius * height, colour
    return shapes


# in units of the holder's height, x along the forearm from the hand (turned upright for what hangs), as in `rows`
THINGS: dict[str, np.ndarray] = {
    "gun": rows((0, 0, 0.17, 0, 0.028, 1, 15, 15, 18), (0.01, 0, 0.03, 0.09, 0.026, 1, 15, 15, 18)),
    "stick": rows((-0.08, 0, 0.5, 0, 0.024, 0, 126, 84, 44)),
    "crowbar": rows((-0.06, 0, 0.34, 0, 0.022, 0, 170, 40, 40), (0.34, 0, 0.38, 0.07, 0.022, 0, 170, 40, 40)),
    "spray_can": rows((0.02, 0, 0.12, 0, 0.038, 1, 235, 60, 190)),
    "broom": rows((-0.25, 0, 0.5, 0, 0.016, 0, 200, 170, 110), (0.5, -0.1, 0.5, 0.1, 0.04, 1, 190, 180, 80)),
    "bag": rows((-0.08, 0.15, 0.08, 0.15, 0.075, 1, 150, 60, 130), (0, 0, 0, 0.1, 0.015, 1, 60, 30, 50)),
    "can": rows((-0.08, 0.12, 0.08, 0.12, 0.09, 1, 214, 40, 30), (-0.04, 0.02, 0.06, 0.02, 0.02, 1, 150, 20, 20)),
    "box": rows((-0.02, -0.02, 0.3, -0.02, 0.14, 1, 186, 142, 88), (0.13, -0.02, 0.15, -0.02, 0.14, 1, 222, 196, 150)),
    "goods": rows((0, 0, 0.1, 0, 0.06, 1, 250, 210, 40)),
    "money_bag": rows((-0.06, 0.12, 0.06, 0.12, 0.11, 0, 205, 190, 150), (0, 0.1, 0, 0.14, 0.03, 1, 60, 120, 60)),
    "umbrella": rows((0, 0.05, 0, -0.62, 0.012, 0, 60, 60, 60), (-0.24, -0.62, 0.24, -0.62, 0.07, 0, 40, 90, 160)),
    "ball": rows((0, 0, 0, 0, 0.07, 0, 240, 120, 30)),
}
_UPRIGHT = {"bag", "can", "money_bag", "umbrella", "box", "goods", "ball"}


def thing_shapes(kind: str, hand: np.ndarray, elbow: np.ndarray, facing: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Shapes (T, P, 9) of a thing held in the hand; hand and elbow (T, 2)."""
    template = THINGS[kind]
    angle = np.where(facing > 0, 0.0, np.pi)
    if kind not in _UPRIGHT:
        angle = np.arctan2(*(hand - elbow).T[::-1])
    flip = np.where(facing > 0, 1.0, -1.0)  # the thing's own y always points away from the holder's head
    return place_shapes(template, hand, height, angle, flip)


def place_shapes(
    template: np.ndarray, origin: np.ndarray, scale: np.ndarray, angle: np.ndarray, flip: np.ndarray
) -> np.ndarray:
    """A template (P, 9) scaled, mirrored in y by flip, turned by angle (T,) and moved to origin (T, 2): (T, P, 9)."""
    shapes = np.repeat(template[None], len(origin), axis=0)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    for i in (0, 2):
        along, across = template[None, :, i], template[None, :, i + 1] * flip[:, None]
        shapes[:, :, i] = origin[:, :1] + scale[:, None] * (cos * along - sin * across)
        shapes[:, :, i + 1] = origin[:, 1:] + scale[:, None] * (sin * along + cos * across)
    shapes[:, :, 4] *= scale[:, None]
    return shapes


def vehicle_template(kind: str, colour: tuple[int, int, int]) -> np.ndarray:
    """Shapes (P, 9) of a vehicle seen from its side, heading right, wheels on y = 0, in units of a person's height."""
    dark, tyre, glass = tuple(int(0.6 * value) for value in colour), (24, 24, 26), (58, 74, 90)
    if kind == "bicycle":
        frame = [
            (-0.28, -0.17, 0.28, -0.17),
            (-0.1, -0.2, 0.0, -0.45),
            (0.28, -0.17, 0.2, -0.52),
            (-0.1, -0.4, 0.22, -0.42),
        ]
        bars = [(*bar, 0.022, 0, *colour) for bar in frame]
        discs = [
            (x, -0.17, x, -0.17, size, 0, *shade)
            for x in (-0.28, 0.28)
            for size, shade in ((0.17, tyre), (0.12, (120,) * 3))
        ]
        return rows(*discs, *bars)
    if kind == "van":
        body = [
            (-0.95, -0.55, 0.55, -0.55, 0.36, 1, *colour), (0.55, -0.35, 0.9, -0.35, 0.17, 1, *colour),
            (0.5, -0.55, 0.78, -0.4, 0.2, 0, *colour), (0.5, -0.68, 0.68, -0.55, 0.13, 0, *glass),
            (-0.95, -0.2, 0.9, -0.2, 0.05, 1, *dark),
        ]  # fmt: skip
    else:
        body = [
            (-0.5, -0.56, 0.3, -0.56, 0.19, 0, *dark), (-0.44, -0.56, -0.12, -0.56, 0.13, 1, *glass),
            (0.0, -0.56, 0.28, -0.56, 0.13, 1, *glass), (-0.88, -0.31, 0.88, -0.31, 0.16, 1, *colour),
            (-0.88, -0.18, 0.88, -0.18, 0.04, 1, *dark), (-0.06, -0.42, -0.06, -0.2, 0.012, 1, *dark),
        ]  # fmt: skip
    if kind == "police":
        body += [
            (-0.88, -0.3, 0.88, -0.3, 0.05, 1, 30, 60, 170), (-0.2, -0.78, -0.05, -0.78, 0.05, 1, 40, 60, 255),
            (-0.05, -0.78, 0.1, -0.78, 0.05, 1, 255, 40, 40),
        ]  # fmt: skip
    wheels = [
        (x, -0.15, x, -0.15, radius, 0, *shade)
        for x in (-0.55, 0.55)
        for radius, shade in ((0.16, tyre), (0.07, (150, 150, 155)))
    ]
    return rows(
        *body,
        (0.86, -0.36, 0.9, -0.36, 0.05, 1, 250, 245, 200),
        (-0.9, -0.36, -0.87, -0.36, 0.05, 1, 220, 30, 30),
        *wheels,
    )


def lying_thing(kind: str, x: float, y: float, size: float) -> np.ndarray:
    """A bag or box that stands on the ground at (x, y): shapes (P, 9)."""
    half = 0.11 * size
    body = {"bag": (120, 50, 110), "box": (186, 142, 88), "goods": (250, 210, 40), "can": (214, 40, 30)}[kind]
    handle = (x - half * 0.4, y - 2 * half, x + half * 0.4, y - 2 * half, half * 0.3)
    return rows(
        (x - half, y - half, x + half, y - half, half, 1, *body), (*handle, 0, *(0.6 * value for value in body))
    )
