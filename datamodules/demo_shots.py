"""Scenes of the demo world with the mask of everything in them, and what one would call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from vigil.actors import Sprite, rows
from vigil.crimes import SCRIPTS
from vigil.scenes import Scene, make_scene, sprite_boxes
from vigil.stage import COLOURS

N_FRAMES = 96  # of a scene, of which a clip is a part
SMALLEST = 16  # pixels of a thing in the frame that shows most of it
# what a sprite's tag makes of it; the first that fits
NOUNS = {
    "person": "person", "police_car": "police car", "vehicle": "car", "bicycle": "bicycle", "fire": "fire",
    "fireball": "explosion", "smoke": "smoke", "debris": "debris", "broken_glass": "broken glass", "window": "window",
    "counter": "counter", "graffiti": "graffiti", "gun": "gun", "stick": "stick", "crowbar": "crowbar",
    "spray_can": "spray can", "can": "can", "money_bag": "sack", "bag": "bag", "box": "box", "broom": "broom",
    "umbrella": "umbrella", "ball": "ball", "bus": "bus", "truck": "truck", "traffic_light": "traffic light",
    "traffic_sign": "traffic sign",
}  # fmt: skip
WITHOUT_ARTICLE = ("fire", "smoke", "debris", "broken glass", "graffiti")
MANNERS = {
    "lying": "lying on the ground", "cuffed": "kneeling in handcuffs", "punching": "punching", "kicking": "kicking",
    "striking": "hitting something", "aiming": "aiming", "arms_raised": "raising both arms", "cowering": "cowering",
    "crouching": "crouching", "kneeling": "kneeling", "climbing": "climbing", "bending": "bending down",
    "sweeping": "sweeping the ground", "carrying": "carrying something", "riding": "riding", "running": "running",
}  # fmt: skip
PEOPLE = ("person", "child", "officer")


@dataclass
class Thing:
    """Something that a shot shows: mask bool (T, Y, X); colour and manner are empty where there is nothing to say."""

    noun: str
    colour: str
    manner: str
    mask: np.ndarray

    def phrases(self) -> list[str]:
        """From the least to the most particular, such as "a person", "a person in red", "a person in red running"."""
        noun = self.noun if self.noun in WITHOUT_ARTICLE else _article(self.noun)
        found = [noun]
        if self.colour and self.noun in PEOPLE:
            found.append(f"{noun} in {self.colour}")
        elif self.colour:
            found.append(_article(f"{self.colour} {self.noun}"))
        return [*found, f"{found[-1]} {self.manner}"] if self.manner else found


@dataclass
class Shot:
    """Frames uint8 (T, Y, X, 3) of one scene, and the things in them, those behind first. road: it has one."""

    frames: np.ndarray
    things: list[Thing]
    road: bool


def make_shot(seed: int, n_frames: int, street: bool = False) -> Shot:
    """n_frames frames of a scene, about its event if it has one; street: with traffic lights, signs, buses, trucks.

    Two thirds of the scenes hold one of the 13 events, so that what they are made of is among the things.
    """
    rng = np.random.default_rng([seed, n_frames])
    category = str(rng.choice([*SCRIPTS])) if rng.random() < 2 / 3 else "Normal"
    scene = make_scene(seed, category, N_FRAMES)
    if street:
        scene.sprites += [_furniture(rng) for _ in range(int(rng.integers(1, 3)))]
    begin, end = scene.anomalies[0] if scene.anomalies else (0, N_FRAMES)
    if n_frames == 1:
        index = np.array([int(rng.integers(begin + (end - begin) // 4, end))])
    else:
        index = max(0, min(begin - n_frames // 4, N_FRAMES - 2 * n_frames)) + 2 * np.arange(n_frames)
    frames = np.stack([scene.frame(int(i))[0] for i in index])
    return Shot(frames, _things(scene, index), scene.place in ("street", "parking"))


def _things(scene: Scene, index: np.ndarray) -> list[Thing]:
    """What can be seen at the frames index (T,), with the mask of what of it can be seen."""
    named = [sprite for sprite in scene.sprites if any(tag in NOUNS for tag in sprite.tags)]
    named = [sprite for sprite in named if sprite_boxes(sprite, index)[1].any()]
    order = np.argsort([float(sprite.depth[index].mean()) for sprite in named], kind="stable")
    masks = _masks(scene, [named[k] for k in order], index)
    things = []
    for k, mask in zip(order, masks, strict=True):
        if mask.sum(axis=(1, 2)).max() >= SMALLEST:
            things.append(_thing(named[k], scene, index[mask.any(axis=(1, 2))], mask))
    return things


def _masks(scene: Scene, named: Sequence[Sprite], index: np.ndarray) -> np.ndarray:
    """Where each of the sprites can be seen: bool (N, T, Y, X), by the renderer's own event mask.

    Solids hide each other, so each bit of their numbers is rendered as an event of its own; fire is painted over them
    all and hides them too, smoke lets them through.
    """
    number = {id(sprite): k + 1 for k, sprite in enumerate(named) if sprite.opacity is None}
    solid = [sprite for sprite in scene.sprites if sprite.opacity is None]
    owner = np.zeros((len(index), *scene.background.shape[:2]), int)
    for bit in range(len(named).bit_length()):
        marked = [_marked(sprite, bool(number.get(id(sprite), 0) >> bit & 1)) for sprite in solid]
        part = replace(scene, sprites=marked)
        owner += np.stack([part.frame(int(i))[1] for i in index]).astype(int) << bit
    masks = np.stack([owner == k + 1 for k in range(len(named))]) if named else np.zeros((0, *owner.shape), bool)
    for k, sprite in enumerate(named):
        if sprite.opacity is not None:
            alone = replace(scene, sprites=[_marked(sprite, True)])
            masks[k] = [alone.frame(int(i))[1] for i in index]
            if sprite.tags.keys() & {"fire", "fireball"}:
                masks[[number[id(other)] - 1 for other in named if id(other) in number]] &= ~masks[k]
    return masks


def _marked(sprite: Sprite, anomalous: bool) -> Sprite:
    return replace(sprite, anomalous=np.full(len(sprite.depth), anomalous))


def _thing(sprite: Sprite, scene: Scene, seen: np.ndarray, mask: np.ndarray) -> Thing:
    """What a sprite is called, over the frames `seen` in which it can be seen."""
    noun = next(name for tag, name in NOUNS.items() if tag in sprite.tags)
    colours = sprite.shapes[seen[0], :, 6:]
    colour, manner = "", ""
    if noun == "person":
        noun = "child" if "child" in sprite.tags else "officer" if "uniform" in sprite.tags else "person"
        shown = {tag: int(sprite.tags[tag][seen].sum()) for tag in MANNERS if tag in sprite.tags}
        most = max(shown, key=lambda tag: shown[tag], default="")
        manner = MANNERS[most] if most and shown[most] > len(seen) / 2 else ""
        colour = _colour(colours[8], 45) if noun != "officer" else ""  # of person_shapes: the torso
    elif noun in ("car", "bicycle"):
        colour = next((name for name, value in COLOURS.items() if (colours == value).all(axis=1).any()), "")
        noun = "van" if noun == "car" and len(colours) == 11 else noun  # of vehicle_template: a van has fewest parts
    return Thing(noun, colour if scene.colour and not scene.night else "", manner, mask)


def _colour(value: np.ndarray, within: float) -> str:
    """The name of the nearest colour that has one."""
    distance = {name: float(np.linalg.norm(value - np.array(colour))) for name, colour in COLOURS.items()}
    nearest = min(distance, key=lambda name: distance[name])
    return nearest if distance[nearest] < within else ""


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _furniture(rng: np.random.Generator) -> Sprite:
    """A bus, truck, traffic light or traffic sign that stands somewhere in the picture all the time."""
    kind = str(rng.choice(["bus", "truck", "traffic_light", "traffic_sign"]))
    x, y = float(rng.uniform(24, 136)), float(rng.uniform(72, 104))
    shapes = _template(kind) * np.array([*[rng.uniform(0.8, 1.2)] * 5, 1, 1, 1, 1])
    if kind in ("bus", "truck"):
        shapes[1, 6:] = COLOURS[str(rng.choice(list(COLOURS)))]
    shapes[:, [0, 2]] += x
    shapes[:, [1, 3]] += y
    always = np.ones(N_FRAMES, bool)
    return Sprite(np.repeat(shapes[None], N_FRAMES, axis=0), always * y, {kind: always}, ~always)


@cache
def _template(kind: str) -> np.ndarray:
    """Shapes (P, 9), the foot at (0, 0), in units of the picture; of a bus or truck, row 1 is painted in its colour."""
    pole = (0, -34, 0, -1, 1.0, 1, 90, 92, 96)
    if kind == "traffic_light":
        lamps = [(0, -48 + 6 * k, 0, -48 + 6 * k, 2.0, 0, *lit) for k, lit in enumerate(((230, 40, 30), (70, 60, 20)))]
        return rows(pole, (-1, -42, 1, -42, 9.0, 1, 30, 32, 34), *lamps, (0, -36, 0, -36, 2.0, 0, 20, 60, 30))
    if kind == "traffic_sign":
        return rows(pole, (0, -38, 0, -38, 7.0, 0, 210, 30, 34), (-4, -38, 4, -38, 1.6, 1, 244, 244, 240))
    wheels = [(side, -3, side, -3, 3.6, 0, 24, 24, 26) for side in (-15, 15)]
    if kind == "bus":
        panes = [(-20 + 8 * k, -21, -16 + 8 * k, -21, 3.0, 1, 58, 74, 90) for k in range(6)]
        return rows((-26, -4, 26, -4, 1.4, 1, 30, 30, 32), (-26, -16, 26, -16, 12.0, 1, 0, 0, 0), *panes, *wheels)
    cab = [(20, -11, 28, -11, 8.0, 1, 70, 74, 82), (23, -14, 27, -14, 3.4, 1, 58, 74, 90)]
    return rows((-26, -4, 28, -4, 1.4, 1, 30, 30, 32), (-26, -17, 16, -17, 13.0, 1, 0, 0, 0), *cab, *wheels)
