"""Two pictures of the same job: whether they are identical, and if not, what differs and can be why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from PIL import Image

from hotfolder import outputs, record
from hotfolder.errors import JobError
from hotfolder.foreign import file_sha256
from hotfolder.metadata import generation
from hotfolder.names import shown
from hotfolder.record import FORCED, Record, pixels_sha256

#: Stages that hand on what came in: a picture that is made again alone goes without them.
_ONLY_CHOOSE: Final = frozenset({"select"})
#: Where a difference says nothing about pixels: the version of a stage is raised when the stage makes other ones.
_NEVER_WHY: Final = frozenset({"versions.hotfolder", "versions.python"})


class Verdict(StrEnum):
    """What became of making a picture again."""

    #: The same pixels, whatever else differs.
    IDENTICAL = "identical"
    #: Other pixels, and something differs that can be why; or a speed was used that does not promise the same ones.
    EXPLAINED = "explained"
    #: Other pixels, and all that decides about them is the same: a defect, of this program or of the machine.
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing in which two records differ."""

    #: As it is called in the sidecar: "pixels_sha256", "model.hash", "versions.torch", "stages.crop.version" ...
    what: str
    #: None: the record does not say.
    old: str | None
    new: str | None
    #: Whether it can be why the pixels differ.
    explains: bool


def read(path: Path) -> Record:
    """Read a sidecar; or of a picture the sidecar beside it, or else what the picture itself holds.

    Raises:
        JobError: `not-found`: there is nothing to read; `changed-file`: the sidecar is broken; `bad-picture`;
            `newer-schema`.
        OSError: it cannot be read.
    """
    sidecar = path if path.suffix == ".toml" else outputs.sidecar_of(path)
    try:
        return record.load(sidecar.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise JobError(
            "changed-file", f"{shown(sidecar.name)} is no sidecar, or was changed: {shown(str(error))[:200]}"
        ) from error
    try:
        found = None if sidecar == path else outputs.read_record(path)
    except FileNotFoundError:
        raise JobError("not-found", f"there is no {shown(str(path))}") from None
    if found is None:
        raise JobError(
            "not-found",
            f"{shown(str(path))} does not say how it was made",
            "name its sidecar, or put that beside it",
        )
    return found


def check(picture: Path, old: Record) -> bool:
    """Check that a file still has the pixels that its record tells of; False where there is no way to know.

    A PNG is compared by its pixels, so that its text may have changed. The pixels of other formats are not those that
    were encoded: they are compared by their file, whose hash only the sidecar has.

    Raises:
        JobError: `changed-file`.
        OSError: it cannot be read.
    """
    if old.file_sha256 == file_sha256(picture):
        return True
    if picture.suffix.lower() == ".png":
        same = _pixels(picture) == old.pixels_sha256
    elif old.file_sha256 is None:
        return False
    else:
        same = False
    if not same:
        raise JobError(
            "changed-file",
            f"{shown(picture.name)} is not the picture that its record tells of",
            "it was changed after it was finished; drop its sidecar to have it made again",
        )
    return True


def differences(old: Record, new: Record) -> list[Difference]:
    """Say in what two records differ: the pixels first, then what decides about them."""
    found = []
    if old.pixels_sha256 != new.pixels_sha256:
        found.append(
            Difference(what="pixels_sha256", old=old.pixels_sha256, new=new.pixels_sha256, explains=False),
        )
        found += _first_other_pixels(old, new)
    if _was_forced(old) != _was_forced(new):
        said = {False: "as it was made", True: "changed by hand"}
        old_said, new_said = said[_was_forced(old)], said[_was_forced(new)]
        found.append(Difference(what="intermediate picture", old=old_said, new=new_said, explains=True))
    before, after = dict(_facts(old)), dict(_facts(new))
    # In the order of the sidecar, and what only the new one says after it.
    for what in {**before, **after}:
        one, other = before.get(what), after.get(what)
        if one != other:
            found.append(Difference(what=what, old=one, new=other, explains=what not in _NEVER_WHY))
    return found


def _was_forced(of: Record) -> bool:
    """Whether somebody had it made with an intermediate picture that was changed by hand."""
    return any(text.endswith(FORCED) for text in of.notices)


def verdict(old: Record, new: Record) -> Verdict:
    """Say whether a picture that was made again is the same, and if not, whether that has a reason."""
    if old.pixels_sha256 == new.pixels_sha256:
        return Verdict.IDENTICAL
    promised = old.speed == new.speed == "exact"
    if not promised or any(difference.explains for difference in differences(old, new)):
        return Verdict.EXPLAINED
    return Verdict.UNEXPLAINED


def _first_other_pixels(old: Record, new: Record) -> Iterator[Difference]:
    """Find the first stage that gave other pixels: all before it went the same way."""
    made = [[stage for stage in of.stages if stage.stage not in _ONLY_CHOOSE] for of in (old, new)]
    for one, other in zip(*made, strict=False):
        if one.gave != other.gave:
            what = f"stages.{one.name}.gave"
            yield Difference(what=what, old=" ".join(one.gave), new=" ".join(other.gave), explains=False)
            return


def _facts(of: Record) -> Iterator[tuple[str, str]]:
    """All that decides about pixels, by its name in the sidecar."""
    yield "seed", str(of.seed)
    yield "speed", of.speed
    told = generation(of)
    if told is not None:
        for key, value in told.model_dump(exclude_none=True).items():
            yield f"generate.{key}", str(value)
    yield from _table("model", of.model)
    yield from _table("versions", of.versions)
    for stage in of.stages:
        if stage.stage not in _ONLY_CHOOSE:
            yield f"stages.{stage.name}.version", str(stage.version)
    for number, source in enumerate(of.sources, 1):
        yield f"sources.{number}.{source.role}.sha256", source.sha256


def _table(name: str, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        yield f"{name}.{key}", str(value)


def _pixels(picture: Path) -> str:
    # It is compared with one that we made ourselves: there is no limit that it could pass.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(picture, formats=["PNG"]) as image:
            return pixels_sha256(image)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return f"not a picture: {error}"
