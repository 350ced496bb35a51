"""An Engine that paints instead of denoising: the same request makes the same pixels, in no time."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from hotfolder.engine import Made, Request, Tick


@dataclass
class PaintedEngine:
    """Paints a picture from the hash of its request.

    Args:
        before_step: called before each step with the request and the step, counted from 1; may block or raise.
    """

    before_step: Callable[[Request, int], None] | None = None
    made: list[Request] = field(default_factory=list)
    #: Models in the order in which they were loaded; one fits at a time.
    loads: list[str] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self.loads[-1:])

    def make(self, request: Request, tick: Tick) -> Made:
        tick("load", 0, 0)
        if request.model.key not in self.loaded:
            self.loads.append(request.model.key)
        tick("encode", 0, 0)
        for step in range(1, request.steps + 1):
            if self.before_step is not None:
                self.before_step(request, step)
            tick("denoise", step, request.steps)
        tick("decode", 0, 0)
        self.made.append(request)
        return Made(image=paint(request), model={"device": "paint"}, timings={"denoise": 0.0})

    def close(self) -> None:
        self.closed.set()


def paint(request: Request) -> Image.Image:
    """A flat picture whose colour tells prompt, seed, size and every source."""
    told = hashlib.sha256(f"{request.prompt} {request.seed} {request.steps} {request.kind}".encode())
    for role in sorted(request.pictures):
        told.update(request.pictures[role].tobytes())
    red, green, blue = told.digest()[:3]
    return Image.new("RGB", (request.width, request.height), (red, green, blue))
