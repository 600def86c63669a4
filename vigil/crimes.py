"""The thirteen UCF-Crime events as the demo world stages them: each script fills a Stage for the spans of the event."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vigil.actors import rows
from vigil.stage import Spans, Stage
from vigil.thefts import burglary, robbery, shoplifting, stealing


def abuse(stage: Stage, spans: Spans) -> None:
    """An adult beats a cowering child with a stick."""
    x, y = stage.middle()
    adult, who = stage.somebody(involved=True)
    child, _ = stage.somebody(involved=True, size=0.6)
    child.enter(x, y, at=max(2, spans[0][0] - 60))
    adult.enter(x - stage.reach(y, 0.55), y, at=spans[0][0]).hold("stick", spans[0][0] - 20, spans[-1][1] + 10)
    for first, end in spans:
        child.do("stand", first)
        adult.do("talk", first, toward=x)
        adult.do("strike", end, toward=x)
        child.do("cower", end, toward=x - 20)
        stage.say(
            first, end, f"{who} beats a child with a stick again and again, the child crouches and covers its head"
        )
    adult.leave(side=-1)
    child.do("stand", stage.n_frames)


def arrest(stage: Stage, spans: Spans) -> None:
    """Two officers make somebody kneel and put handcuffs on."""
    x, y = stage.middle()
    first, end = spans[0]
    suspect, who = stage.somebody(involved=True)
    suspect.enter(x, y, at=max(2, first - 25)).do("stand", first)
    suspect.do("hands_up", first + (end - first) // 4).do("cuffed", end, toward=x + 20)
    if "road_far" in stage.place.spots:
        car_x = x + np.maximum(first - np.arange(stage.n_frames), 0) * 2.5 - 40
        stage.vehicle("police", car_x, stage.place.spots["road_far"][1], -1, (236, 238, 242))
        stage.say(first - 40, first, "a police car drives up and stops")
    for side in (-1, 1):
        officer = stage.officer(involved=True)
        officer.enter(x + side * stage.reach(y, 0.5), y + side * 2, at=first + 4, motion="run", side=side)
        officer.do("aim" if side < 0 else "reach", first + (end - first) // 4, toward=x).do(
            "bend", end, toward=x
        ).leave(side=1)
        if side < 0:
            officer.hold("gun", first, first + (end - first) // 4)
    suspect.leave(side=1)
    stage.say(first, end, f"two police officers surround {who}, push them to their knees and handcuff them")
    stage.say(end, end + 60, "the officers lead the handcuffed person away")


def arson(stage: Stage, spans: Spans) -> None:
    """Somebody pours petrol from a can, and a fire grows."""
    first, end = spans[0]
    x0, _, x1, _ = stage.place.wall
    x, y = float(stage.rng.uniform(x0 + 8, x1 - 8)), stage.place.wall_ground + float(stage.rng.uniform(2, 14))
    culprit, who = stage.somebody(involved=True, shirt="black")
    lit = first + min(24, (end - first) // 4)
    culprit.enter(x - stage.reach(y, 0.5), y + 2, at=first).hold("can").do("bend", lit, toward=x).leave("run", side=-1)
    frame = np.arange(stage.n_frames)
    strength = np.clip((frame - lit) / 25, 0, 1) * np.clip((end - frame) / 15, 0, 1)
    size = stage.reach(y, float(stage.rng.uniform(0.5, 0.75)))
    stage.fire(x, y, size, strength)
    stage.smoke(x, y - size * 0.8, size * 0.8, strength, shade=45)
    stage.say(first, lit + 10, f"{who} pours liquid from a red can on the ground and sets it on fire")
    stage.say(lit + 10, end, "the fire grows, flames and black smoke rise")


def assault(stage: Stage, spans: Spans) -> None:
    """Somebody attacks another from behind, who falls and is kicked."""
    x, y = stage.middle()
    victim, whom = stage.somebody(involved=True)
    attacker, who = stage.somebody(involved=True)
    side = int(stage.rng.choice([-1, 1]))
    victim.enter(x, y, at=max(2, spans[0][0] - 30), side=-side)
    attacker.enter(x + side * stage.reach(y, 0.42), y + 1, at=spans[0][0], motion="run", side=side)
    for first, end in spans:
        fall = first + (end - first) // 4
        victim.do("talk", first).do("stand", fall, toward=x - side * 20).do("lie", end)
        attacker.do("talk", first, toward=x).do("punch", fall + 4, toward=x).do("kick", end, toward=x)
        stage.say(first, fall + 4, f"{who} suddenly runs up to {whom} and punches them from behind")
        stage.say(fall + 4, end, "the victim lies on the ground and is kicked several times")
    attacker.leave("run", side=side)
    victim.do("kneel", spans[-1][1] + 25).leave(side=-side)


def explosion(stage: Stage, spans: Spans) -> None:
    """A fireball with debris and thick smoke; people fall or run."""
    first, end = spans[0]
    x, y = stage.middle()
    size = stage.reach(y, float(stage.rng.uniform(0.9, 1.3)))
    frame = np.arange(stage.n_frames)
    age = np.clip(frame - first, 0, None).astype(float)
    burst = (frame >= first) * np.exp(-age / 22) * np.clip((end - frame) / 6, 0, 1)
    stage.fire(x, y, size, burst * 1.3, attribute="fireball")
    stage.flash(x, y - size * 0.4, size * 0.9, (255, 196, 90), (frame >= first) & (frame < first + 9), "fireball")
    fade = (frame >= first + 3) * np.clip((end - frame) / 25, 0, 1)
    stage.smoke(x - 4, y, size * 1.1, fade * 1.2, shade=38)
    speed, lift, n_pieces = stage.rng.uniform(-3.2, 3.2, 12), stage.rng.uniform(2, 5.5, 12), 12
    shapes = np.zeros((stage.n_frames, n_pieces, 9), np.float32)
    height = np.maximum(lift * age[:, None] - 0.13 * age[:, None] ** 2, stage.rng.uniform(-6, 6, n_pieces))
    landed = np.minimum(age[:, None], lift / 0.13)
    shapes[..., 0], shapes[..., 1], shapes[..., 4], shapes[..., 6:] = x + speed * landed, y - height, 1.7, (46, 38, 34)
    shapes[..., 2:4] = shapes[..., 0:2] + 1.5
    flying = (frame >= first) & (frame < end)
    shapes[~flying, :, 4] = -9
    stage.thing(shapes[0], y, flying & False, "debris")
    stage.fixed[-1].shapes, stage.fixed[-1].tags["debris"], stage.fixed[-1].anomalous = shapes, flying, flying
    for side in (-1, 1):
        witness, _ = stage.somebody()
        witness.enter(x + side * stage.reach(y, 1.0), y + side * 4, at=max(2, first - 10), side=side).do("stand", first)
        if side < 0:
            witness.do("lie", end, toward=x).do("kneel", end + 20)
        witness.leave("run", side=side)
    stage.say(first, first + 30, "something explodes in a ball of fire and debris flies through the air")
    stage.say(first + 15, end, "thick dark smoke fills the picture and people run away")


def fighting(stage: Stage, spans: Spans) -> None:
    """Two to four people exchange blows."""
    x, y = stage.middle()
    pairs = int(stage.rng.integers(1, 3))
    for pair in range(pairs):
        centre, depth = x + pair * stage.reach(y, 1.1) - 8, y - 5 * pair
        for side in (-1, 1):
            fighter, _ = stage.somebody(involved=True)
            home = centre + side * stage.reach(y, 0.26)
            fighter.enter(home, depth + side, at=max(2, spans[0][0] - 3), side=side)
            for first, end in spans:
                fighter.do("talk", first, toward=centre)
                while fighter.frame < end:
                    push = float(stage.rng.uniform(-3, 3))
                    fighter.do("punch", min(end, fighter.frame + int(stage.rng.integers(14, 30))), toward=centre)
                    if fighter.frame < end:
                        fighter.go(home + push, fighter.y, "punch", until=min(end, fighter.frame + 8), turn=False)
            fighter.leave(side=side)
    count = {1: "two", 2: "four"}[pairs]
    for first, end in spans:
        stage.say(first, end, f"{count} people fight each other with their fists and push each other around")


def road_accident(stage: Stage, spans: Spans) -> None:
    """Two cars crash into each other, or a car runs over somebody on foot."""
    first, end = spans[0]
    crash = first + 3
    y = stage.place.spots["road_near" if stage.rng.random() < 0.6 else "road_far"][1]
    x, size = float(stage.rng.uniform(65, 95)), float(stage.place.height(y))
    frame = np.arange(stage.n_frames)
    before, after = np.minimum(frame - crash, 0), np.clip(frame - crash, 0, 22)
    settle = 1 - (1 - after / 22) ** 2
    if stage.rng.random() < 0.6:
        for side in (-1, 1):
            tilt = side * float(stage.rng.uniform(0.16, 0.34)) * settle
            track = x + side * 0.86 * size - side * 2.6 * before + side * 9 * settle
            stage.vehicle(
                "car" if side < 0 else "van",
                track,
                y + side,
                -side,
                stage.colour(),
                angle=tilt,
                involved=True,
                lift=settle * 2,
            )
        stage.say(first - 25, first, "two vehicles drive towards each other at speed")
        stage.say(first, first + 25, "the two vehicles crash head on, their fronts are lifted and parts fly off")
    else:
        stage.vehicle(
            "car",
            x - 0.95 * size + 2.6 * before + 16 * settle,
            y,
            1,
            stage.colour(),
            angle=0.05 * settle,
            involved=True,
        )
        walker, who = stage.somebody(involved=True)
        walker.enter(x, y + 1, at=crash, side=1)
        walker.go(x + 26, y - size * 0.5, "lie", until=crash + 8).go(x + 40, y + 3, "lie", until=crash + 18).do(
            "lie", end
        )
        stage.say(first - 20, first, f"{who} walks onto the road while a car comes fast")
        stage.say(first, first + 25, "the car hits the person, who is thrown through the air and lies on the road")
    spread, grey = stage.rng.uniform((-34, -1), (34, 7), (12, 2)), stage.rng.choice([40, 120, 220], 12)
    parts = [
        (x + dx, y + dy, x + dx + 3, y + dy - 1, 1.2, 0, shade, shade, shade)
        for (dx, dy), shade in zip(spread, grey, strict=True)
    ]
    stage.thing(rows(*parts), y + 2, (frame >= crash) & (frame < end), "debris")
    stage.smoke(x, y - 0.5 * size, 0.32 * size, (frame >= crash) * np.clip((end - frame) / 20, 0, 1), shade=170)
    for _ in range(int(stage.rng.integers(1, 3))):
        helper, _ = stage.somebody()
        helper.frame, helper.x, helper.y = crash + int(stage.rng.integers(20, 40)), -14, y + 8
        helper.go(x - float(stage.rng.uniform(20, 44)), y + 7, "run").do("talk", stage.n_frames)
    stage.say(first + 25, end, "debris lies on the road, steam rises and somebody runs up to help")


def shooting(stage: Stage, spans: Spans) -> None:
    """Somebody fires a gun, with flashes at its muzzle; one falls, others run."""
    x, y = stage.middle()
    side = int(stage.rng.choice([-1, 1]))
    x += -side * 24
    gunman, who = stage.somebody(involved=True)
    victim, _ = stage.somebody(involved=True)
    gunman.enter(x, y, at=spans[0][0], side=-side).hold("gun", spans[0][0] - 4, spans[-1][1] + 6)
    target = x + side * stage.reach(y, 1.15)
    victim.enter(target, y - 2, at=max(2, spans[0][0] - 10), side=side)
    frame = np.arange(stage.n_frames)
    muzzle = x + side * stage.reach(y, 0.56)
    for first, end in spans:
        gunman.do("talk", first, toward=target).do("aim", end, toward=target)
        hit = first + (end - first) // 4
        victim.do("talk", first, toward=x).do("hands_up", hit, toward=x).do("lie", end)
        firing = (frame >= first + 6) & (frame < end - 4) & ((frame - first) % 11 < 3)
        stage.flash(muzzle, y - stage.reach(y, 0.8), stage.reach(y, 0.17), (255, 190, 70), firing, "muzzle_flash")
        stage.say(first, end, f"{who} raises a gun and fires several shots, one person falls to the ground")
    bystander, _ = stage.somebody()
    bystander.enter(target + side * 12, y - 8, at=max(2, spans[0][0] - 10), side=side).do(
        "talk", spans[0][0] + 8
    ).leave("run", side=side)
    gunman.leave("run", side=-side)
    victim.do("kneel", spans[-1][1] + 20).leave(side=side)


def vandalism(stage: Stage, spans: Spans) -> None:
    """Somebody sprays a wall, or smashes a parked car with a bat."""
    if stage.place.name in ("street", "parking") and stage.rng.random() < 0.5:
        spot = "bay" if "bay" in stage.place.spots else "road_far"
        x, y = stage.place.spots[spot]
        size = stage.reach(y, 1.0)
        stage.vehicle("car", np.full(stage.n_frames, x), y, 1, stage.colour(), involved=True)
        shards = stage.rng.uniform((-0.8 * size, 0), (0.8 * size, 6), (10, 2))
        crack = (x - 0.3 * size, y - 0.56 * size, x - 0.1 * size, y - 0.6 * size, 0.1 * size, 0, 214, 226, 232)
        splinters = [(x + dx, y + dy, x + dx + 2, y + dy - 1, 1.0, 0, 220, 240, 248) for dx, dy in shards]
        stage.thing(rows(*splinters, crack), y + 1, stage.after(spans[0][0] + 20), "broken_glass")
        hooligan, who = stage.somebody(involved=True)
        hooligan.enter(x - 0.75 * size, y + 5, at=spans[0][0]).hold("stick")
        for first, end in spans:
            hooligan.do("stand", first).do("strike", end, toward=x)
            stage.say(first, end, f"{who} smashes the windows of a parked car with a bat")
        hooligan.leave("run")
        return
    x0, y0, x1, y1 = stage.place.wall
    x, y = float(stage.rng.uniform(x0 + 4, x1 - 20)), stage.place.wall_ground + 2
    sprayer, who = stage.somebody(involved=True)
    sprayer.enter(x - 6, y, at=spans[0][0]).hold("spray_can")
    colour = [(236, 40, 150), (30, 220, 90), (40, 120, 250), (250, 130, 20)][int(stage.rng.integers(4))]
    done = np.cumsum(stage.in_event()) / max(1, stage.in_event().sum())
    points = np.stack(
        [np.linspace(x, x + 17, 9), np.where(np.arange(9) % 2, y1 - 5, y0 + 4) + stage.rng.uniform(-3, 3, 9)], axis=-1
    )
    for i in range(8):
        stroke = rows((*points[i], *points[i + 1], 1.9, 0, *colour))
        stage.thing(stroke, 1.0, done > (i + 0.3) / 8, "graffiti")
    for first, end in spans:
        sprayer.do("stand", first).go(sprayer.x + 16 / len(spans), y, "spray", until=end)
        stage.say(first, end, f"{who} sprays large letters on the wall with a spray can")
    sprayer.leave("run")


SCRIPTS: dict[str, tuple[Callable[[Stage, Spans], None], tuple[str, ...]]] = {
    "Abuse": (abuse, ("corridor", "yard", "hall")),
    "Arrest": (arrest, ("street", "parking", "hall")),
    "Arson": (arson, ("street", "parking", "yard", "shop")),
    "Assault": (assault, ("street", "parking", "corridor", "hall", "yard")),
    "Burglary": (burglary, ("street", "corridor", "yard")),
    "Explosion": (explosion, ("street", "parking", "hall", "shop")),
    "Fighting": (fighting, ("street", "corridor", "hall", "yard")),
    "RoadAccidents": (road_accident, ("street", "parking")),
    "Robbery": (robbery, ("shop", "hall")),
    "Shooting": (shooting, ("street", "parking", "hall", "corridor")),
    "Shoplifting": (shoplifting, ("shop",)),
    "Stealing": (stealing, ("street", "parking", "hall", "yard")),
    "Vandalism": (vandalism, ("street", "corridor", "yard", "parking")),
}
REPEATABLE = ("Abuse", "Assault", "Fighting", "Shooting", "Shoplifting", "Vandalism")  # may hold two events
OPEN_ENDED = ("RoadAccidents",)  # wrecks stay where they are until the recording ends
