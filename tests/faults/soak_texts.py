"""The texts that are dropped in a soak, each with what is to come of it; and pictures, whole and broken."""

import io
import random
from collections.abc import Callable, Mapping
from typing import Final

from PIL import Image
from soak_oracle import Drop, colour_of

_STAGED: Final = '[[stages]]\nstage = "generate"\n[[stages]]\nstage = "pad"\nleft = 8\n[[stages]]\nstage = "export"\n'
_EDIT: Final = '[[stages]]\nstage = "grayscale"\n[[stages]]\nstage = "export"\n'
#: Lines that make a job file wrong, each in its way.
_WRONG: Final = (
    "stpes = 3\n",
    "steps = 0\n",
    'prompt = "not closed\n',
    "seed = 1\nseed = 2\n",
    "[stage.nothing]\nleft = 1\n",
    'preset = "nobody-has-this"\n',
    'image = "../../etc/passwd"\n',
    "count = 100000\n",
    "=\n",
    "\x00\n",
    "a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
)


def plain(token: str, chance: random.Random) -> Drop:
    """One to three pictures."""
    prompt, seed, steps = f"mug {token}", chance.randrange(2**32 - 3), chance.randint(1, 3)
    pictures = chance.choice((1, 1, 1, 1, 2, 3))
    text = f'title = "{token}"\nprompt = "{prompt}"\nseed = {seed}\nsteps = {steps}\ncount = {pictures}\n'
    text += "width = 16\nheight = 16\n"
    colours = tuple(colour_of(prompt, seed + number, steps) for number in range(pictures))
    if chance.random() < 0.1:
        text = text.removesuffix("\n")
    return Drop(token=token, data=text.encode(), ends={"completed"}, pictures=pictures, colours=colours)


def staged(token: str, chance: random.Random) -> Drop:
    """Three stages, with a checkpoint between."""
    text = f'title = "{token}"\nprompt = "a mug"\nsteps = 2\nwidth = 16\nheight = 16\n'
    return Drop(token=token, data=(text + _STAGED).encode(), ends={"completed"})


def wrong(token: str, chance: random.Random) -> Drop:
    """A text that is refused."""
    text = f'# {token}\nprompt = "a mug"\n{chance.choice(_WRONG)}'
    return Drop(token=token, data=text.encode(), ends={"rejected"})


def mended(refused: bytes, token: str, new_token: str) -> Drop:
    """What came back as refused, without the lines that were wrong, as another text."""
    wrong_lines = {line.encode() for lines in _WRONG for line in lines.splitlines(keepends=True)}
    lines = refused.replace(token.encode(), new_token.encode()).splitlines(keepends=True)
    data = b"".join(line for line in lines if line not in wrong_lines)
    return Drop(token=new_token, data=data + b"steps = 1\nwidth = 16\nheight = 16\n", ends={"completed"})


def edit(token: str, picture: str) -> Drop:
    """Works on a picture, without a model."""
    return Drop(token=token, data=f'title = "{token}"\nimage = "{picture}"\n{_EDIT}'.encode(), ends={"completed"})


def bare(token: str) -> Drop:
    """What becomes of the picture TOKEN.png in a lane for pictures."""
    return Drop(token=token, data=f'image = "{token}.png"\n'.encode(), ends={"completed"})


#: What a lane for pictures says.
PICTURE_LANE: Final = 'picture_jobs = true\npreset = "noise-kontext"\nprompt = "make it blue"\nsteps = 1\n'

Maker = Callable[[str, random.Random], Drop]
#: How often each is dropped.
MAKERS: Final[Mapping[Maker, int]] = {plain: 12, staged: 2, wrong: 2}


def picture(chance: random.Random) -> bytes:
    """A small picture."""
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (chance.randrange(256), chance.randrange(256), 0)).save(data, "PNG")
    return data.getvalue()


def broken_picture(chance: random.Random) -> bytes:
    """Something that only has the name of a picture."""
    whole = picture(chance)
    return chance.choice((whole[: chance.randrange(9, len(whole) - 20)], b"no picture at all\n", b"\x89PNG\r\n\x1a\n"))
