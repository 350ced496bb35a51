"""What `tiny-kontext` is taught: a scene, what is told to be changed, and the scene that comes of it."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from captions import article
from scenes import COLOURS, THINGS, Ground, Scene, Thing, draw_brought, stands_out, with_things

Change = Literal["recolour", "remove", "add", "replace", "ground"]

#: {it} is "circle" or "red circle", {a} its article, {new} what it becomes.
_TOLD: Final[dict[str, tuple[str, ...]]] = {
    "recolour": ("make the {it} {new}", "paint the {it} {new}", "turn the {it} {new}", "change the {it} to {new}"),
    "recolour it": ("make it {new}", "paint it {new}", "turn it {new}"),
    "remove": ("remove the {it}", "take the {it} away", "delete the {it}"),
    "add": ("add {a} {it}", "add {a} {it} {where}", "put {a} {it} {where}"),
    "replace": ("replace the {it} with {a} {new}", "turn the {it} into {a} {new}"),
    "plain": ("make the background {new}", "change the background to {new}", "{a} {new} background"),
    "day": ("day", "make it day", "by day"),
    "night": ("night", "make it night", "at night"),
}
#: So many scenes are drawn until one can be changed so.
_TRIES: Final = 20
#: Of the changes of a thing that is alone.
_UNNAMED: Final = 0.3
#: Where the first and the second of two things stand.
_WHERE: Final = {
    "row": (("on the left", "to the left"), ("on the right", "to the right")),
    "stack": (("at the top", "above"), ("at the bottom", "below")),
}


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change of a scene."""

    change: Change
    before: Scene
    after: Scene
    told: str


def draw_edit(chance: random.Random, before: Scene | None = None) -> Edit:
    """Draw a change that can be seen, of a drawn scene or of a given one."""
    while True:
        change = _CHANGES[chance.choice(list(_CHANGES))]
        # Few scenes can be added to: each sort of change is to be as frequent as the others.
        for _ in range(1 if before else _TRIES):
            if (edit := change(before or draw_brought(chance), chance)) is not None:
                return edit


def words() -> set[str]:
    """Return every word that may be told, but for things and colours."""
    templates = [text for texts in _TOLD.values() for text in texts]
    templates += [text for pair in _WHERE.values() for texts in pair for text in texts]
    return set(re.sub(r"\{\w+\}", " ", " ".join(templates)).split())


def _recolour(scene: Scene, chance: random.Random) -> Edit:
    thing = chance.choice(scene.things)
    taken = {other.colour for other in scene.things}
    new = chance.choice([name for name in COLOURS if name not in taken and stands_out(name, scene.ground)])
    # Of a thing that is alone nobody needs to say which.
    said = "recolour it" if len(scene.things) == 1 and chance.random() < _UNNAMED else "recolour"
    told = _told(said, chance, it=_named(thing, chance), new=new)
    return _with("recolour", scene, told, {thing: replace(thing, colour=new)})


def _remove(scene: Scene, chance: random.Random) -> Edit:
    thing = chance.choice(scene.things)
    return _with("remove", scene, _told("remove", chance, it=_named(thing, chance)), {thing: None})


def _add(scene: Scene, chance: random.Random) -> Edit | None:
    """A scene of two without one of them: that one is added again."""
    if len(scene.things) != 2:
        return None
    number = chance.randrange(2)
    thing = scene.things[number]
    it = f"{thing.colour} {thing.name}"
    told = _told("add", chance, it=it, a=article(it), where=chance.choice(_WHERE[scene.order][number]))
    empty = _with("remove", scene, "", {thing: None}).after
    return Edit(change="add", before=empty, after=scene, told=told)


def _replace(scene: Scene, chance: random.Random) -> Edit:
    thing = chance.choice(scene.things)
    taken = {other.name for other in scene.things}
    new = chance.choice([name for name in THINGS if name not in taken])
    told = _told("replace", chance, it=_named(thing, chance), a=article(new), new=new)
    return _with("replace", scene, told, {thing: replace(thing, name=new)})


def _ground(scene: Scene, chance: random.Random) -> Edit | None:
    grounds = [Ground(kind="day"), Ground(kind="night")] * 4
    grounds += [Ground(kind="plain", colours=(name,)) for name in COLOURS]
    fitting = [ground for ground in grounds if all(stands_out(thing.colour, ground) for thing in scene.things)]
    fitting = [ground for ground in fitting if ground != scene.ground]
    if not fitting:
        return None
    ground = chance.choice(fitting)
    new = "".join(ground.colours)
    told = _told(ground.kind, chance, new=new, a=article(new))
    return Edit(change="ground", before=scene, after=replace(scene, ground=ground), told=told)


_CHANGES: Final[dict[Change, Callable[[Scene, random.Random], Edit | None]]] = {
    "recolour": _recolour,
    "remove": _remove,
    "add": _add,
    "replace": _replace,
    "ground": _ground,
}


def _named(thing: Thing, chance: random.Random) -> str:
    return thing.name if chance.random() < 0.6 else f"{thing.colour} {thing.name}"


def _told(change: str, chance: random.Random, **said: str) -> str:
    return chance.choice(_TOLD[change]).format(**said)


def _with(change: Change, scene: Scene, told: str, changed: dict[Thing, Thing | None]) -> Edit:
    """Return the edit of a scene in which things become others, or None."""
    after = (changed.get(thing, thing) for thing in scene.things)
    left = with_things(scene, (thing for thing in after if thing is not None))
    return Edit(change=change, before=scene, after=left, told=told)
