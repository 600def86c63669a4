"""Where the demo world's cameras hang: backgrounds of six places, and what stands where in them.

All lengths are in units of a 160 x 120 picture; colours are 0..255 in daylight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Place:
    """A fixed view: background float32 (Y, X, 3), the ground people walk on, how tall they are there, and named spots.

    ground: y nearest the horizon and nearest the camera. tall: a person's height at those two. wall: x0, y0, x1, y1 of
    a free stretch of wall, and wall_ground the y of the floor at its foot. spots: {name: (x, y)} on the ground.
    """

    name: str
    background: np.ndarray
    ground: tuple[float, float]
    tall: tuple[float, float]
    wall: tuple[float, float, float, float]
    wall_ground: float
    spots: dict[str, tuple[float, float]] = field(default_factory=dict)
    indoors: bool = False
    noun: str = ""
    counter: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 of what hides whoever stands behind it

    def height(self, y: np.ndarray | float) -> Any:
        """Height of an adult who stands at y."""
        return np.interp(y, self.ground, self.tall)


class _Canvas:
    """A picture in 160 x 120 units that rectangles and polygons are filled into."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.pixels = np.zeros((height, width, 3), np.float32)
        self.unit, self.rng = width / 160, rng
        self.y, self.x = np.mgrid[0:height, 0:width].astype(np.float32) / self.unit

    def fill(self, x0: float, y0: float, x1: float, y1: float, colour: tuple[float, ...], grain: float = 0.0) -> None:
        """A rectangle, with texture of strength grain."""
        u = self.unit
        area = self.pixels[round(y0 * u) : round(y1 * u), round(x0 * u) : round(x1 * u)]
        area[:] = colour
        if grain and area.size:
            coarse = self.rng.normal(0, grain, (area.shape[0] // 2 + 1, area.shape[1] // 2 + 1, 1))
            area += coarse.repeat(2, 0).repeat(2, 1)[: area.shape[0], : area.shape[1]]

    def polygon(self, points: Sequence[tuple[float, float]], colour: tuple[float, ...]) -> None:
        """A convex polygon, its corners clockwise as seen."""
        inside = np.ones(self.x.shape, bool)
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            inside &= (x1 - x0) * (self.y - y0) - (y1 - y0) * (self.x - x0) >= 0
        self.pixels[inside] = colour

    def tint(self, low: int, high: int) -> tuple[float, ...]:
        """A random dull colour between two levels of grey."""
        return tuple((self.rng.uniform(low, high) + self.rng.normal(0, 7, 3)).tolist())

    def panes(self, x0: int, x1: int, step: int, y0: int, y1: int) -> None:
        """A row of windows."""
        for x in range(x0, x1, step):
            self.fill(x - 1, y0 - 1, x + step * 0.55 + 1, y1 + 1, (205, 205, 198))
            self.fill(x, y0, x + step * 0.55, y1, (62, 78, 96), 4)


def _street(c: _Canvas) -> Place:
    x = 0
    while x < 160:
        width = int(c.rng.integers(38, 62))
        c.fill(x, 0, min(x + width, 160), 54, c.tint(95, 170), 3)
        c.panes(x + 5, min(x + width, 160) - 8, 14, 5, 16)
        x += width
    wall_x = float(c.rng.integers(14, 96))
    c.fill(wall_x - 4, 20, wall_x + 48, 54, c.tint(140, 175), 2)
    c.fill(0, 54, 160, 64, (150, 148, 142), 3)  # the far pavement
    c.fill(0, 64, 160, 66, (196, 194, 186))
    c.fill(0, 66, 160, 102, (84, 86, 90), 4)
    for start in range(int(c.rng.integers(0, 12)), 160, 24):
        c.fill(start, 82.5, min(start + 13, 160), 84.5, (214, 214, 206))
    c.fill(0, 102, 160, 104, (196, 194, 186))
    c.fill(0, 104, 160, 120, (160, 156, 148), 3)
    spots = {"middle": (float(c.rng.integers(55, 105)), 106.0), "road_far": (80.0, 79.0), "road_near": (80.0, 97.0)}
    return Place("street", c.pixels, (58, 116), (29, 54), (wall_x, 24, wall_x + 42, 52), 60, spots, noun="street")


def _shop(c: _Canvas) -> Place:
    c.fill(0, 0, 160, 62, c.tint(180, 215), 2)
    c.fill(0, 62, 160, 120, c.tint(150, 185), 2)
    for x in range(-40, 200, 20):
        c.polygon([(x + 6, 62), (x + 7, 62), (2.0 * x - 66, 120), (2.0 * x - 69, 120)], (140, 138, 134))
    shelf_end = int(c.rng.integers(88, 104))
    c.fill(4, 10, shelf_end, 70, (96, 74, 56), 2)
    for y in (14, 28, 42, 56):
        for x in range(7, shelf_end - 5, 6):
            top = y + float(c.rng.integers(0, 5))
            c.fill(x, top, x + 5, y + 11, tuple(c.rng.uniform(60, 245, 3).tolist()))
        c.fill(4, y + 11, shelf_end, y + 13, (150, 124, 98))
    c.fill(shelf_end + 12, 12, 156, 40, c.tint(110, 150), 2)
    counter = shelf_end + 14.0
    spots = {
        "shelf": (float(c.rng.integers(24, shelf_end - 26)), 82.0), "middle": (60.0, 104.0),
        "clerk": (counter + 14, 90.0), "customer": (counter - 12, 94.0),
    }  # fmt: skip
    wall = (shelf_end + 13, 13, 155, 40)
    return Place("shop", c.pixels, (74, 116), (48, 66), wall, 74, spots, True, "shop", (counter, 66, 162, 92))


def _parking(c: _Canvas) -> Place:
    c.fill(0, 0, 160, 24, c.tint(150, 200), 2)
    c.fill(0, 10, 160, 44, c.tint(105, 150), 4)
    c.panes(6, 150, 22, 14, 22)
    c.fill(0, 44, 160, 120, (98, 98, 102), 5)
    for x in range(int(c.rng.integers(-8, 8)), 170, 40):
        c.polygon([(x, 50), (x + 1.5, 50), (x - 5, 76), (x - 7, 76)], (210, 210, 204))
    c.polygon([(0, 108), (160, 108), (160, 110), (0, 110)], (205, 190, 90))
    spots = {"middle": (float(c.rng.integers(50, 110)), 96.0), "road_far": (80.0, 88.0), "road_near": (80.0, 106.0),
             "bay": (float(c.rng.choice([34, 74, 114])), 74.0)}  # fmt: skip
    return Place("parking", c.pixels, (66, 116), (34, 54), (92, 25, 150, 42), 66, spots, noun="parking lot")


def _corridor(c: _Canvas) -> Place:
    wall = c.tint(165, 205)
    c.fill(0, 0, 160, 120, tuple(0.92 * v for v in wall))
    c.fill(44, 22, 116, 70, wall, 2)
    c.polygon([(0, 0), (160, 0), (116, 22), (44, 22)], (222, 222, 216))
    c.polygon([(44, 66), (116, 66), (160, 106), (160, 120), (0, 120), (0, 106)], c.tint(120, 160))
    for x in (72, 84):
        c.polygon([(x, 4), (x + 8, 4), (x + 6, 14), (x + 2, 14)], (255, 255, 248))
    door = tuple(c.rng.uniform(60, 150, 3).tolist())
    for side in (0, 1):
        near, far = 8 + 144 * side, 28 + 104 * side
        order = [(near, 26), (far, 32), (far, 82), (near, 98)]
        c.polygon(order if side == 0 else order[::-1], door)
    c.fill(0, 119, 160, 120, (90, 90, 90))
    spots = {"middle": (float(c.rng.integers(62, 98)), 94.0)}
    return Place("corridor", c.pixels, (70, 116), (38, 68), (52, 26, 108, 64), 72, spots, indoors=True, noun="corridor")


def _yard(c: _Canvas) -> Place:
    c.fill(0, 0, 160, 30, (172, 196, 220))
    c.fill(0, 24, 160, 56, c.tint(92, 120), 8)
    for x in range(0, 160, 7):
        c.fill(x, 34, x + 5, 62, (150, 118, 84), 3)
    c.fill(0, 60, 160, 120, (104, 132, 76), 9)
    left = bool(c.rng.integers(2))
    x0, x1 = (0.0, 72.0) if left else (88.0, 160.0)
    c.fill(x0, 8, x1, 66, c.tint(160, 210), 2)
    c.polygon([(x0 - 6, 8), (x0 + 4, 0), (x1 - 4, 0), (x1 + 6, 8)], (128, 70, 56))
    door = x0 + 8 if left else x1 - 22
    c.fill(door, 30, door + 14, 66, (112, 66, 40), 2)
    c.polygon([(door - 2, 66), (door + 16, 66), (door + 26, 120), (door - 14, 120)], (168, 160, 148))
    wall_x = x0 + 30 if left else x1 - 66
    spots = {"middle": (float(c.rng.integers(70, 120) if left else c.rng.integers(40, 90)), 98.0)}
    return Place("yard", c.pixels, (68, 116), (38, 58), (wall_x, 20, wall_x + 36, 58), 70, spots, noun="yard")


def _hall(c: _Canvas) -> Place:
    c.fill(0, 0, 160, 64, c.tint(175, 215), 2)
    c.fill(0, 64, 160, 120, c.tint(168, 200), 2)
    for y in (70, 78, 88, 101):
        c.fill(0, y, 160, y + 1, (146, 142, 136))
    for x in (70, 128):
        c.fill(x, 0, x + 9, 68, c.tint(130, 160), 2)
        c.fill(x - 1, 64, x + 10, 70, (110, 106, 100))
    c.fill(86, 12, 120, 30, tuple(c.rng.uniform(40, 200, 3).tolist()), 10)
    for x in (10, 32):
        c.fill(x, 20, x + 1, 60, (225, 228, 230))
    c.fill(92, 70, 122, 73, (120, 80, 50))
    spots = {"clerk": (26.0, 84.0), "customer": (66.0, 92.0), "middle": (float(c.rng.integers(80, 116)), 100.0)}
    return Place("hall", c.pixels, (72, 116), (42, 62), (84, 33, 122, 60), 74, spots, indoors=True, noun="hall",
                 counter=(-2, 60, 52, 88))  # fmt: skip


PLACES: dict[str, Callable[[_Canvas], Place]] = {
    "street": _street, "shop": _shop, "parking": _parking, "corridor": _corridor, "yard": _yard, "hall": _hall,
}  # fmt: skip


def make_place(name: str, height: int, width: int, rng: np.random.Generator) -> Place:
    """The named place as one camera sees it: layout and colours drawn from the generator."""
    return PLACES[name](_Canvas(height, width, rng))


def light_map(place: Place, night: bool, rng: np.random.Generator) -> np.ndarray:
    """How bright each point is, float32 (Y, X, 3): about 1 by day; dim and blue with pools of lamp light by night."""
    height, width = place.background.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) * (160 / width)
    slope = 1 + rng.uniform(-0.12, 0.12) * (x / 80 - 1) + rng.uniform(-0.1, 0.1) * (y / 60 - 1)
    if not night:
        tint = rng.uniform(0.78, 1.08) * np.array([1, 1, rng.uniform(0.92, 1.06)])
        return np.asarray(slope[..., None] * tint, np.float32)
    light = np.full((height, width, 3), rng.uniform(0.3, 0.42)) * np.array([0.86, 0.94, 1.12])
    for _ in range(int(rng.integers(1, 4))):
        lamp_x, lamp_y = rng.uniform(15, 145), rng.uniform(35, 95)
        pool = np.exp(-((x - lamp_x) ** 2 + 2 * (y - lamp_y) ** 2) / (2 * rng.uniform(24, 42) ** 2))
        light += rng.uniform(0.3, 0.55) * pool[..., None] * np.array([1.1, 1.0, 0.75])
    return np.asarray(light * slope[..., None], np.float32)
