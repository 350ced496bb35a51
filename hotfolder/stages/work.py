"""What a stage takes and gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from hotfolder.clock import Moment
from hotfolder.engine import Engine, Made, Tick
from hotfolder.outputs import Written
from hotfolder.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Work:
    """One candidate on its way through the stages; each stage returns it with what it made."""

    plan: Plan
    plan_sha256: str
    run_id: str
    folder: Path
    candidate: int
    engine: Engine
    tick: Tick
    #: When the picture was made, for its record.
    finished_at: Moment
    #: Of the programs that made it.
    versions: Mapping[str, str]
    #: The job's sources by role, as loaded: RGB, the mask L.
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    #: The picture as it is now.
    made: Made | None = None
    #: The picture as it was written, once it is.
    written: Written | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: what it does and where it runs."""

    #: On the GPU thread, or on the threads beside it.
    lane: Literal["gpu", "cpu"]
    #: Raised when the stage would make other pixels from the same keys.
    version: int
    run: Callable[[Work], Work]
