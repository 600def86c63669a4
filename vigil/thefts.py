"""How the demo world stages UCF-Crime's four kinds of theft; each script fills a Stage for the spans of the event."""

from __future__ import annotations

import numpy as np

from vigil.actors import lying_thing, rows
from vigil.stage import Spans, Stage


def burglary(stage: Stage, spans: Spans) -> None:
    """A masked person breaks a window with a crowbar, climbs in and comes out with a sack."""
    first, end = spans[0]
    x0, y0, x1, y1 = stage.place.wall
    x, half = float(stage.rng.uniform(x0 + 12, x1 - 12)), 9.0
    sill = y1 - 6
    ground = stage.place.wall_ground + 3
    broken = first + (end - first) // 3
    level, tall = (y0 + sill) / 2, (sill - y0) / 2
    frame = (x - half, level, x + half, level, tall + 1, 1, 222, 220, 210)
    inner = (x - half + 1, level, x + half - 1, level, tall - 1, 1)
    pane = rows(frame, (*inner, 120, 160, 190))
    stage.thing(pane, 1.0, ~stage.after(broken), "window")
    teeth = [
        (x + dx, y0 + 2, x + dx * 0.6, y0 + 7 + 4 * float(stage.rng.random()), 1.6, 0, 190, 214, 226)
        for dx in (-8, -3, 4, 8)
    ]
    teeth += [(x + dx, sill - 1, x + dx * 0.8, sill - 6, 1.6, 0, 190, 214, 226) for dx in (-7, 2, 7)]
    shards = [
        (x + dx, ground + dy, x + dx + 2, ground + dy - 1, 0.9, 0, 214, 236, 246)
        for dx, dy in stage.rng.uniform((-14, -2), (14, 6), (9, 2))
    ]
    stage.thing(rows(frame, (*inner, 8, 8, 12), *teeth, *shards), 1.5, stage.after(broken), "broken_glass")
    thief, _ = stage.somebody(involved=True, shirt="black", masked=True)
    inside, out = broken + (end - broken) // 4, broken + (end - broken) * 3 // 5
    thief.enter(x - stage.reach(ground, 0.42), ground, at=first).hold("crowbar", 0, broken + 4)
    thief.do("strike", broken, toward=x).go(x, ground - 8, "climb", until=inside)
    thief.frame, thief.facing = out, -1
    thief.go(x - 5, ground, "climb", until=out + (end - out) // 2).hold("money_bag", out).go(
        x - 14, ground + 4, "walk", until=end
    ).leave("run")
    stage.say(first, broken, "a masked person in a black shirt hits the window with a crowbar until the glass breaks")
    stage.say(broken, end, "the masked person climbs in through the broken window and comes out with a sack")


def robbery(stage: Stage, spans: Spans) -> None:
    """A masked person points a gun at the clerk, who raises the hands and gives the money."""
    first, end = spans[0]
    clerk_x, clerk_y = stage.place.spots["clerk"]
    x, y = stage.place.spots["customer"]
    clerk, _ = stage.somebody(involved=True, shirt="green")
    clerk.x, clerk.y = clerk_x, clerk_y
    handed = first + (end - first) * 3 // 5
    clerk.do("stand", first, toward=x).do("hands_up", handed).do("reach", handed + 20).do("hands_up", end).do(
        "stand", stage.n_frames
    )
    for i in range(int(stage.rng.integers(1, 3))):
        robber, _ = stage.somebody(involved=True, shirt="black", masked=True)
        away = -1 if x < clerk_x else 1
        robber.enter(x + 16 * away * i, y + 5 * i, at=first, motion="run", side=away).hold(
            "gun", first - 8, handed + 25
        )
        robber.do("aim", handed + 20, toward=clerk_x).do("reach", end, toward=clerk_x).leave("run", side=away)
        robber.hold("money_bag", handed + 25)
    stage.say(0, first, "a clerk in a green shirt waits behind the counter")
    stage.say(first, handed, "a masked person in black points a gun at the clerk, who raises both hands")
    stage.say(handed, end, "the clerk hands over the money in a bag and the robber runs away")


def shoplifting(stage: Stage, spans: Spans) -> None:
    """Somebody takes goods from the shelf and hides them in a bag on the floor."""
    x, y = stage.place.spots["shelf"]
    thief, who = stage.somebody(involved=True)
    thief.enter(x, y, at=spans[0][0], side=-1).hold("bag", 0, spans[0][0] + 6)
    frame = np.arange(stage.n_frames)
    on_floor = (frame >= spans[0][0] + 6) & (frame < spans[-1][1] - 3)
    stage.thing(lying_thing("bag", x + 13, y + 5, stage.reach(y, 1.3)), y + 4, on_floor, "bag")
    for first, end in spans:
        thief.do("stand", first)
        taken = first
        while taken < end:
            step = min(end, taken + 34)
            thief.hold("goods", taken + 8, step - 6).do("reach", min(end, taken + 13), toward=x - 10).do(
                "crouch", step, toward=x + 20
            )
            taken = step
        stage.say(first, end, f"{who} takes goods from the shelf, crouches and hides them in a bag on the floor")
    thief.hold("bag", spans[-1][1] - 3).leave(side=-1)
    stage.say(spans[-1][1], spans[-1][1] + 60, f"{who} leaves the shop without paying")


def stealing(stage: Stage, spans: Spans) -> None:
    """Somebody breaks a lock and rides off on a bicycle, or snatches a bag from beside its owner."""
    first, end = spans[0]
    x, y = stage.middle()
    frame = np.arange(stage.n_frames)
    size = stage.reach(y, 1.0)
    thief, who = stage.somebody(involved=True)
    if stage.rng.random() < 0.5 and not stage.place.indoors:
        away = first + (end - first) * 3 // 5
        colour = stage.colour()
        stage.vehicle(
            "bicycle", np.full(stage.n_frames, x + 14.0), y - 1, 1, colour, when=frame < away, involved=True, scale=1.15
        )
        stage.vehicle(
            "bicycle", x + 14 + 3.0 * (frame - away), y - 1, 1, colour, when=frame >= away, involved=True, scale=1.15
        )
        thief.enter(x, y, at=first, side=-1).hold("crowbar", first, away - 6).do("kneel", away - 8, toward=x + 14).go(
            x + 14, y - 1, "climb", until=away
        )
        thief.go(x + 14 + 3.0 * (stage.n_frames - away), y - 1 - size * 0.12, "ride", until=stage.n_frames)
        stage.say(first, away, f"{who} kneels beside a parked bicycle and breaks its lock with a crowbar")
        stage.say(away, end, f"{who} rides away on the stolen bicycle")
        return
    owner, whom = stage.somebody()
    owner.enter(x - size * 0.4, y - 2, at=2, side=-1).do("talk", end, toward=x - 40).leave("run", side=1)
    grab = first + (end - first) // 2
    stage.thing(lying_thing("bag", x + 5, y + 1, size * 1.2), y, frame < grab, "bag")
    thief.enter(x + 12, y + 2, at=first, side=1).do("crouch", grab, toward=x)
    thief.hold("bag", grab).go(172, y + 2, "run", until=end)
    stage.say(0, first, f"{whom} stands with the back to a bag on the ground")
    stage.say(first, end, f"{who} sneaks up, crouches beside the bag, snatches it and runs away")
