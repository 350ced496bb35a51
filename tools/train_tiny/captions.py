"""What is said of a scene, in several wordings, and all words that are ever said."""

import random
import re
from functools import cache
from typing import Final

from scenes import COLOURS, THINGS, Ground, Place, Scene, Size, Thing

_PLACES: Final[dict[Place, tuple[str, ...]]] = {
    "": ("",),
    "left": ("on the left",),
    "right": ("on the right",),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "middle": ("in the middle", "in the centre"),
    "top left": ("at the top left", "in the top left corner"),
    "top right": ("at the top right", "in the top right corner"),
    "bottom left": ("at the bottom left", "in the bottom left corner"),
    "bottom right": ("at the bottom right", "in the bottom right corner"),
}
_SIZES: Final[dict[Size, tuple[str, ...]]] = {"small": ("small",), "": ("",), "large": ("large", "big")}
_OPENINGS: Final = ("", "", "", "a picture of", "a drawing of")
#: Said of things in a row, or one above the other: from left to right, or from the top.
_BETWEEN: Final = {
    "row": ("{0} on the left and {1} on the right", "{0} to the left of {1}", "{0} next to {1}", "{0} and {1}"),
    "stack": ("{0} at the top and {1} at the bottom", "{0} above {1}"),
}
_GROUNDS: Final = {
    "plain": ("on {a} {0} background", "on {0}"),
    "gradient": ("in front of a gradient from {0} to {1}", "on a background from {0} to {1}"),
    "day": ("by day", "under a blue sky"),
    "night": ("at night", "under the stars at night"),
}
_ROWS: Final = ("{0}, {1} and {2}", "{0} on the left, {1} in the middle and {2} on the right")

#: Words and marks of a caption, at most: each is a token, and all captions cost what the longest does.
MOST_WORDS: Final = 21
#: Of all texts, 0 to 1.
_WITHOUT_ARTICLES: Final = 0.1
_UNHEARD_OF: Final = 0.1
_AS_A_SENTENCE: Final = 0.25


def say(scene: Scene, chance: random.Random, *, silent: float = 0.0) -> str:
    """Return one of the captions of a scene; the same `chance` draws the same words.

    Args:
        silent: in how many of all, 0 to 1, nothing is said of the ground.
    """
    while True:
        said = _say(scene, chance, silent)
        if len(said.replace(",", " ,").split()) <= MOST_WORDS:
            return said


def _say(scene: Scene, chance: random.Random, silent: float) -> str:
    told = _say_things(scene, chance)
    ground = "" if chance.random() < silent else _say_ground(scene.ground, chance)
    opening = chance.choice(_OPENINGS)
    comma = "," if len(scene.things) > 1 and chance.random() < 0.5 else ""
    return " ".join(part for part in (opening, f"{told}{comma}", ground) if part)


@cache
def words() -> frozenset[str]:
    """Return every word that a caption may hold, and the comma."""
    said = [*_PLACES.values(), *_SIZES.values(), *_BETWEEN.values(), *_GROUNDS.values(), _OPENINGS, _ROWS]
    templates = [text for texts in said for text in texts]
    spoken = " ".join([*templates, *THINGS, *COLOURS, "a an"])
    return frozenset(re.sub(r"\{.\}", " ", spoken).replace(",", " , ").split())


def said_freely(text: str, chance: random.Random) -> str:
    """Return a text as people may write it: with a capital, a full stop, without articles, with a word unheard of."""
    told = text.split()
    if chance.random() < _WITHOUT_ARTICLES:
        told = [word for word in told if word not in {"a", "an", "the"}] or told
    if chance.random() < _UNHEARD_OF:
        told.insert(chance.randrange(len(told) + 1), _unheard_of(chance))
    written = " ".join(told)
    if chance.random() < _AS_A_SENTENCE:
        written = f"{written[:1].upper()}{written[1:]}{chance.choice(('.', ''))}"
    return written


def _unheard_of(chance: random.Random) -> str:
    """Return a word that is none, of pieces of others: a tokenizer cuts it as it does one that it does not know."""
    known = sorted(word for word in words() if word.isalpha())
    while True:
        pieces = []
        for _ in range(chance.randint(1, 3)):
            word = chance.choice(known)
            first = chance.randrange(len(word))
            pieces.append(word[first : first + chance.randint(2, 4)])
        if (made := "".join(pieces)) not in known:
            return made


def say_place(place: Place, chance: random.Random) -> str:
    """Return one of the wordings of a place."""
    return chance.choice(_PLACES[place])


def _say_things(scene: Scene, chance: random.Random) -> str:
    named = [_name(thing, chance) for thing in scene.things]
    match named:
        case [alone]:
            return f"{alone} {say_place(scene.things[0].place, chance)}".strip()
        case [_, _]:
            return chance.choice(_BETWEEN[scene.order]).format(*named)
        case _:
            return chance.choice(_ROWS).format(*named)


def _name(thing: Thing, chance: random.Random) -> str:
    said = " ".join(part for part in (chance.choice(_SIZES[thing.size]), thing.colour, thing.name) if part)
    return f"{article(said)} {said}"


def _say_ground(ground: Ground, chance: random.Random) -> str:
    return chance.choice(_GROUNDS[ground.kind]).format(
        *ground.colours, a=article(ground.colours[0] if ground.colours else "")
    )


def article(word: str) -> str:
    """Return the article of a word."""
    return "an" if word[:1] in set("aeiou") else "a"
