"""What people do in the demo world when nothing is wrong, including what is easily mistaken for an event."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vigil.stage import Actor, Stage

EVERYWHERE = ("street", "shop", "parking", "corridor", "yard", "hall")
ROADS = ("street", "parking")
OUTDOORS = ("street", "parking", "yard")


def _ground(stage: Stage) -> tuple[float, float]:
    low, high = stage.place.ground
    return float(stage.rng.uniform(30, 130)), float(stage.rng.uniform(low + 2, high - 3))


def _crosser(stage: Stage, first: int, motion: str, side: int, size: float | None = None) -> tuple[Actor, str]:
    """Somebody who crosses the whole picture, in it from about frame `first`."""
    actor, who = stage.somebody(size=size)
    low, high = stage.place.ground
    actor.frame, actor.x, actor.y = first, (-14.0 if side < 0 else 174.0), float(stage.rng.uniform(low, high))
    actor.go(80.0, float(np.clip(actor.y + stage.rng.uniform(-5, 5), low, high)), motion).leave(motion, side=-side)
    return actor, who


def passers_by(stage: Stage, count: int) -> None:
    """People who walk through, some with a bag."""
    for _ in range(count):
        side = int(stage.rng.choice([-1, 1]))
        first = int(stage.rng.integers(-120, max(1, stage.n_frames - 60)))
        actor, who = _crosser(stage, first, "walk", side)
        if stage.rng.random() < 0.3:
            actor.hold("bag")
            who += " with a bag"
        stage.say(
            first, actor.frame, f"{who} walks through the {stage.place.noun} from the {'left' if side < 0 else 'right'}"
        )


def crowd(stage: Stage) -> None:
    """Eight to eleven people on foot at once."""
    for _ in range(int(stage.rng.integers(8, 12))):
        side = int(stage.rng.choice([-1, 1]))
        first = int(stage.rng.integers(-150, stage.n_frames // 2))
        _crosser(stage, first, "walk", side)
    stage.say(0, stage.n_frames, f"many people walk through the {stage.place.noun} in both directions")


def runners(stage: Stage) -> None:
    """Joggers, or people who run for a bus, one after the other."""
    side, first = int(stage.rng.choice([-1, 1])), int(stage.rng.integers(0, 30))
    while first < stage.n_frames - 20:
        _, who = _crosser(stage, first, "run", side)
        stage.say(first, first + 70, f"{who} runs through the {stage.place.noun}")
        first += int(stage.rng.integers(18, 55))


def children_playing(stage: Stage) -> None:
    """Children who chase each other to and fro."""
    y = float(stage.rng.uniform(stage.place.ground[0] + 10, stage.place.ground[1] - 3))
    for i in range(int(stage.rng.integers(2, 4))):
        child, _ = stage.somebody(size=float(stage.rng.uniform(0.58, 0.7)))
        child.frame, child.x, child.y = 6 * i, float(stage.rng.uniform(20, 140)), y + 4 * i
        while child.frame < stage.n_frames:
            child.go(float(stage.rng.uniform(15, 145)), child.y, "run").do(
                "stand", child.frame + int(stage.rng.integers(2, 14))
            )
        if i == 0 and stage.rng.random() < 0.6:
            child.hold("ball")
    stage.say(0, stage.n_frames, f"children run around and play in the {stage.place.noun}")


def lamps_flash(stage: Stage) -> None:
    """Lamps that fail and flicker, or go off and on."""
    flicker = np.where(stage.rng.random(stage.n_frames // 4 + 1) < 0.5, 1.0, stage.rng.uniform(0.5, 0.75)).repeat(4)[
        : stage.n_frames
    ]
    first = int(stage.rng.integers(0, stage.n_frames // 3))
    end = int(stage.rng.integers(stage.n_frames // 2, stage.n_frames))
    stage.light[first:end] = flicker[first:end]
    if stage.rng.random() < 0.5:
        stage.light[first:end] = np.where(flicker[first:end] < 1, 1.35, 1.0)
    stage.say(first, end, f"the picture of the {stage.place.noun} flickers between bright and dark")


def beacon(stage: Stage) -> None:
    """A police car on patrol or parked, its blue and red lights flashing."""
    y = stage.place.spots["road_far" if stage.rng.random() < 0.5 else "road_near"][1]
    frame = np.arange(stage.n_frames)
    x = np.full(stage.n_frames, float(stage.rng.uniform(40, 120)))
    if stage.rng.random() < 0.5:
        x = -60 + (frame - int(stage.rng.integers(0, 40))) * 1.3
    stage.vehicle("police", x, y, 1, (236, 238, 242))
    size = float(stage.place.height(y))
    for half, colour in enumerate(((60, 90, 255), (255, 60, 60))):
        on = (frame // 7 % 2 == half) & (x > -20) & (x < 180)
        stage.flash(x + (half * 0.15 - 0.12) * size, y - 0.8 * size, 0.34 * size, colour, on, "beacon", involved=False)
    stage.say(0, stage.n_frames, "a police car with flashing lights is on patrol")


def box_carrier(stage: Stage) -> None:
    """People who carry boxes through."""
    for i in range(int(stage.rng.integers(1, 4))):
        side = int(stage.rng.choice([-1, 1]))
        first = int(stage.rng.integers(-40, 60)) + 50 * i
        actor, who = _crosser(stage, first, "carry", side)
        actor.hold("box")
        stage.say(first, actor.frame, f"{who} carries a box through the {stage.place.noun}")


def traffic(stage: Stage) -> None:
    """Cars and vans that drive past in both lanes."""
    frame = np.arange(stage.n_frames)
    for spot, facing in (("road_far", -1), ("road_near", 1)):
        start = int(stage.rng.integers(-40, 60))
        speed = float(stage.rng.uniform(1.6, 3.4))
        while start < stage.n_frames:
            x = 80 + facing * (speed * (frame - start) - 140)
            kind = str(stage.rng.choice(["car", "car", "van"]))
            stage.vehicle(kind, x, stage.place.spots[spot][1], facing, stage.colour())
            start += int(stage.rng.integers(75, 150) * 2 / speed)
    stage.say(0, stage.n_frames, f"cars drive through the {stage.place.noun}")


def cyclist(stage: Stage) -> None:
    """Somebody on a bicycle."""
    first, y = int(stage.rng.integers(0, stage.n_frames // 2)), float(stage.rng.uniform(*stage.place.ground))
    frame = np.arange(stage.n_frames)
    x = -20 + 2.6 * (frame - first)
    stage.vehicle("bicycle", x, y, 1, stage.colour(), when=frame >= first, scale=1.15)
    rider, who = stage.somebody()
    rider.frame, rider.x, rider.y = first, -20, y - float(stage.place.height(y)) * 0.12
    rider.go(-20 + 2.6 * 80, rider.y, "ride", until=first + 80)
    stage.say(first, first + 75, f"{who} rides past on a bicycle")


def meeting(stage: Stage) -> None:
    """People who greet each other with raised hands, stand together and talk."""
    x, y = _ground(stage)
    first = int(stage.rng.integers(10, stage.n_frames // 2))
    for side in (-1, 1):
        actor, _ = stage.somebody()
        actor.enter(x + side * 0.3 * float(stage.place.height(y)), y + side, at=first, side=side)
        actor.do("wave", first + 22, toward=x).do("talk", first + int(stage.rng.integers(80, 160)), toward=x).leave()
    stage.say(first, first + 90, "two people greet each other, stand close together and talk")


def exercise(stage: Stage) -> None:
    """Somebody who stretches, the arms up and down."""
    x, y = _ground(stage)
    actor, who = stage.somebody()
    actor.enter(x, y, at=int(stage.rng.integers(2, 60))).do(
        "stretch", stage.n_frames - int(stage.rng.integers(10, 70))
    ).leave()
    stage.say(actor.acts[1].first, actor.acts[1].end, f"{who} does exercises and stretches both arms")


def tie_shoe(stage: Stage) -> None:
    """Somebody who stops, crouches to tie a shoe or to pick something up, and walks on."""
    x, y = _ground(stage)
    actor, who = stage.somebody()
    first = int(stage.rng.integers(20, stage.n_frames // 2))
    actor.enter(x, y, at=first).do(
        str(stage.rng.choice(["crouch", "bend"])), first + int(stage.rng.integers(40, 90))
    ).leave()
    stage.say(first, actor.acts[1].end, f"{who} stops and bends down to tie a shoe")


def repair(stage: Stage) -> None:
    """A worker who kneels and repairs something, a box beside."""
    x, y = _ground(stage)
    worker, _ = stage.somebody(shirt="orange")
    worker.enter(x, y, at=int(stage.rng.integers(2, 40))).hold("box", 0, worker.frame).do(
        "kneel", stage.n_frames - 30
    ).leave()
    stage.say(worker.acts[1].first, worker.acts[1].end, "a worker in an orange shirt kneels and repairs something")


def sweeping(stage: Stage) -> None:
    """Somebody who sweeps the ground with a broom."""
    x, y = _ground(stage)
    cleaner, who = stage.somebody()
    cleaner.enter(x, y, at=int(stage.rng.integers(2, 40))).hold("broom")
    while cleaner.frame < stage.n_frames:
        cleaner.go(
            float(np.clip(cleaner.x + stage.rng.uniform(-20, 20), 20, 140)), y, "sweep", until=cleaner.frame + 40
        )
    stage.say(cleaner.acts[1].first, stage.n_frames, f"{who} sweeps the ground with a broom")


def patrol(stage: Stage) -> None:
    """A guard in uniform who walks a round."""
    guard = stage.officer()
    first = int(stage.rng.integers(0, 60))
    x, y = _ground(stage)
    guard.enter(x, y, at=first + 40).do("stand", first + 40 + int(stage.rng.integers(20, 90))).leave()
    stage.say(first, guard.frame, f"a guard in uniform walks through the {stage.place.noun} and looks around")


def umbrella(stage: Stage) -> None:
    """Somebody under an umbrella."""
    first = int(stage.rng.integers(-20, stage.n_frames // 2))
    actor, who = _crosser(stage, first, "walk", int(stage.rng.choice([-1, 1])))
    actor.hold("umbrella")
    stage.say(first, actor.frame, f"{who} walks under an umbrella")


def steam(stage: Stage) -> None:
    """Pale steam from a vent."""
    x, y = _ground(stage)
    strength = np.clip(
        np.sin(np.arange(stage.n_frames) * stage.rng.uniform(0.01, 0.03) + stage.rng.uniform(0, 6)), 0, 1
    )
    stage.smoke(x, y, float(stage.rng.uniform(6, 11)), strength * 0.8, shade=225, involved=False)
    stage.say(0, stage.n_frames, "pale steam rises from a vent")


def shopping(stage: Stage) -> None:
    """A customer who takes goods from the shelf and carries them to the counter, where a clerk waits."""
    x, y = stage.place.spots["shelf"]
    first = int(stage.rng.integers(20, stage.n_frames // 3))
    customer, who = stage.somebody()
    customer.enter(x + float(stage.rng.uniform(-12, 12)), y + 2, at=first, side=-1).do(
        "reach", first + 40, toward=x + 20
    ).hold("goods", first + 25)
    counter_x, counter_y = stage.place.spots["customer"]
    customer.go(counter_x, counter_y).do("reach", customer.frame + 40, toward=160).leave(side=-1)
    stage.say(first, customer.frame, f"{who} takes goods from the shelf and pays at the counter")


def clerk(stage: Stage) -> None:
    """A clerk behind the counter, and now and then a customer."""
    behind, _ = stage.somebody(shirt="green")
    behind.x, behind.y = stage.place.spots["clerk"]
    x, y = stage.place.spots["customer"]
    while behind.frame < stage.n_frames:
        behind.do(
            str(stage.rng.choice(["stand", "reach", "talk"])), behind.frame + int(stage.rng.integers(30, 80)), toward=x
        )
    customer, who = stage.somebody()
    first = int(stage.rng.integers(20, stage.n_frames // 2))
    customer.enter(x, y, at=first).do("talk", first + 90, toward=behind.x).hold("bag", first + 70).leave()
    stage.say(first, first + 90, f"{who} talks to the clerk at the counter")


ERRANDS: dict[Callable[[Stage], None], tuple[str, ...]] = {
    traffic: ROADS, cyclist: OUTDOORS, meeting: EVERYWHERE, exercise: ("yard", "hall", "parking"), tie_shoe: EVERYWHERE,
    repair: EVERYWHERE, sweeping: EVERYWHERE, patrol: EVERYWHERE, umbrella: OUTDOORS, steam: OUTDOORS,
    shopping: ("shop",), clerk: ("shop", "hall"), box_carrier: EVERYWHERE, beacon: ROADS,
}  # fmt: skip
HARD_CASES: dict[Callable[[Stage], None], tuple[str, ...]] = {
    crowd: EVERYWHERE, runners: EVERYWHERE, children_playing: ("yard", "hall", "corridor", "street"),
    lamps_flash: EVERYWHERE, beacon: ROADS, box_carrier: EVERYWHERE,
}  # fmt: skip
