"""A plan, a picture made by it, and what is said about it: what the tests of the written word start from."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from hotfolder.engine import Made
from hotfolder.plan import Generation, Plan, PlannedStage, Source, UsedPreset
from hotfolder.presets import Model
from hotfolder.record import CellRecord, Record, describe, keys_as_decided, pixels_sha256

MODEL = Model(repo="black-forest-labs/FLUX.1-dev", revision="main", dtype="bfloat16")
VERSIONS = {"hotfolder": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}
FACTS = {"scheduler": "FlowMatchEulerDiscreteScheduler", "device": "cpu", "hash": "ab" * 32}
NOON = datetime(2026, 11, 20, 12, 0, 0, 123_000, tzinfo=UTC)


def picture(seed: int = 0) -> Image.Image:
    """A small picture; another seed gives other pixels."""
    image = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    image.putpixel((0, 0), (seed % 256, 255, 0))
    return image


def source(role: str = "image", name: str = "mug.png") -> Source:
    file = f"outputs/mug_take01/sources/{name}"
    return Source(role=role, name=name, file=file, sha256="5" * 64, width=640, height=480)


def plan(*, prompt: str = "a mug", sources: Sequence[Source] = (), model: Model = MODEL, **other: Any) -> Plan:
    """A plan of four candidates; `other` may hold fields of Plan and of a Generation."""
    told: dict[str, Any] = {"width": 48, "height": 32, "steps": 28, "guidance": 3.5, "prompt": prompt}
    told |= {key: other.pop(key) for key in list(other) if key in Generation.model_fields}
    told |= {source.role: source.name for source in sources}
    length = told.pop("max_sequence_length", 512)
    used = UsedPreset(kind=other.pop("kind", "text2img"), max_sequence_length=length, model=model)
    return Plan.model_validate(
        {
            "job": "mug_take01",
            "preset": "flux-dev",
            "presets": {"flux-dev": used},
            "seed": 42,
            "count": 4,
            "keys": told,
            "stages": (PlannedStage(stage="generate", id="generate"), PlannedStage(stage="export", id="export")),
            "sources": tuple(sources),
        }
        | other
    )


def made(facts: Mapping[str, str] | None = None, notices: tuple[str, ...] = ()) -> Made:
    return Made(image=picture(), model=FACTS if facts is None else facts, timings={"denoise": 1.25}, notices=notices)


def cells_of(of: Plan, candidate: int = 3, result: Made | None = None) -> list[CellRecord]:
    """What the stages of the sample plan say of one picture."""
    result = result or made()
    pixels = pixels_sha256(result.image)
    took = tuple(source.sha256 for source in of.sources)
    return [
        CellRecord(
            number=1, name="generate", stage="generate", keys=keys_as_decided(of, candidate, 1), took=took,
            gave=(pixels,), size=result.image.size, model=result.model, timings=result.timings, notices=result.notices,
        ),
        CellRecord(number=2, name="export", stage="export", took=(pixels,), gave=(pixels,)),
    ]  # fmt: skip


def record_of(of: Plan | None = None, candidate: int = 3, result: Made | None = None) -> Record:
    of, result = of or plan(), result or made()
    return describe(
        of,
        candidate,
        result.image,
        cells_of(of, candidate, result),
        run_id="run-1",
        plan_sha256="e" * 64,
        created_at=NOON,
        versions=VERSIONS,
    )
