"""Takes of a name: which one is active, outputs/NAME.active.toml that says so, and what "@mug" in a job means.

Active is the newest completed take, or the one that `.use` named. While nobody named one, the journals tell; the file
is then a view of them, for whoever reads the folder.
"""

import re
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hotfolder import durable, foreign, names, tomltext
from hotfolder.errors import HotfolderError, JobError
from hotfolder.job import Job
from hotfolder.journal import Ledger, Output, State
from hotfolder.spool import Spool

SCHEMA: Final = 1
#: What a name for a finished picture of another job begins with.
MARK: Final = "@"
_SUFFIX: Final = ".active.toml"
_MAX_BYTES: Final = 64 * 1024 * 1024
#: Characters of what was found that an answer quotes.
_MAX_SHOWN: Final = 60
#: Takes that a message tells the end of.
_MAX_TOLD: Final = 3
#: The name of a picture, where that of a job or take is due.
_NUMBERED: Final = re.compile(r"_take\d{2,}_\d{3,}(_\d+x\d+)?(\.\w+)?\Z", re.ASCII)
_NUMBER: Final = re.compile(r"[1-9]\d{0,8}\Z", re.ASCII)


class _Table(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)


class ActiveFile(_Table):
    """A finished picture of the active take."""

    candidate: Annotated[int, Field(ge=1)]
    #: Path below the workspace, with slashes.
    file: Annotated[str, Field(pattern=r"^outputs/")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Active(_Table):
    """What NAME.active.toml says."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    #: NAME.
    job: str
    #: Such as "mug_take02".
    take: str
    #: "newest": the newest that is completed, and so the next one that will be. "use": this one, until another `.use`.
    by: Literal["newest", "use"]
    #: The candidate that `.use` named; None: the first one.
    picture: Annotated[int, Field(ge=1)] | None = None
    files: tuple[ActiveFile, ...] = ()

    def dump(self) -> bytes:
        """Return NAME.active.toml."""
        return tomltext.dump(self.model_dump(by_alias=True, exclude_none=True))

    @classmethod
    def load(cls, data: bytes) -> "Active":
        """Read NAME.active.toml.

        Raises:
            ValueError: it is broken.
        """
        table = tomltext.load(data)
        # TOML has no tuples, and nothing else in it is to be taken for what it is not.
        files = table.get("files", [])
        return cls(**{**table, "files": tuple(files) if isinstance(files, list) else files})


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A finished picture, as a job names it: "@mug", "@mug_take01/2"."""

    #: As it was written.
    text: str
    #: NAME, made safe.
    name: str
    #: None: of the active take.
    take: int | None
    #: None: the active picture; of a take the first one.
    candidate: int | None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The picture that a reference means."""

    #: Path below the workspace, with slashes.
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """These jobs have to end first, or to finish that picture."""

    jobs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Use:
    """What a `.use` asks for; neither: the newest completed take again, as if nobody had ever asked."""

    take: int | None = None
    picture: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Take:
    """One take that stands."""

    folder: str
    number: int
    ledger: Ledger
    #: Whether it still may finish pictures.
    live: bool


class Takes:
    """The takes of a workspace. Used by several threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        #: Held from reading to writing an active.toml.
        self._lock = threading.Lock()

    def completed(self, job: Job) -> None:
        """A job is completed: where nobody chose another take, the newest such one is active; durable on return.

        Raises:
            JobError: NAME.active.toml is broken; it may say what somebody chose, and stays as it is.
            OSError: it cannot be written.
        """
        with self._lock:
            before = self._read(job.stem)
            if before is not None and before.by == "use":
                if before.take != job.name:
                    return
                # Chosen before it was whole.
                active = before.model_copy(update={"files": _files(job.name, job.ledger)})
            else:
                newest = self._newest_completed(job.stem, None)
                if newest is None:
                    return
                active = _by_newest(job.stem, newest)
            if active != before:
                self._write(active)

    def use(self, name: str, path: Path, take: int | None) -> str | None:
        """Do what a `.use` asks; return the take that is active now, durably, or None while it has to finish something.

        Args:
            take: the one that the name of the file says, as in mug_take02.use.

        Raises:
            JobError: it cannot be done; `not-found`: there is no such take.
            HotfolderError: no TOML, or it asks for what cannot be.
            OSError: it cannot be written.
        """
        asked = _read_use(path, take)
        with self._lock:
            if asked.take is not None:
                meant = self._take(names.take_folder(name, asked.take))
            else:
                meant = self._newest_completed(name, None)
            if meant is None:
                self._wait_for(name, asked)
                return None
            active = _by_newest(name, meant)
            if asked != _Use():
                there = tuple(one for one in active.files if _stands(self._spool.settings.outputs_dir, one.file))
                if asked.picture is not None:
                    is_there = any(one.candidate == asked.picture for one in there)
                    missing = None if is_there else f"no finished picture {asked.picture}"
                else:
                    # Which pictures it will have is known when it has ended.
                    missing = None if there and not meant.live else "no finished picture"
                if missing is not None and meant.live:
                    return None
                if missing is not None:
                    raise JobError("missing-picture", f"{_end_of(meant)} and has {missing}")
                active = active.model_copy(update={"by": "use", "picture": asked.picture, "files": there})
            self._write(active)
            return active.take

    def resolve(self, reference: Reference, own: Job) -> Finished | Unfinished | None:
        """Find what a reference means in the job `own`, whose name there means the takes before it.

        Returns: None where there is no such job.

        Raises:
            JobError: `missing-picture`: the job has ended without it; `changed-file`, `newer-schema`: NAME.active.toml.
        """
        below = own.take if reference.name == own.stem else None
        if reference.take is not None:
            if reference.take == below:
                raise _missing(reference, f"{own.name} cannot wait for a picture of its own")
            take = self._take(names.take_folder(reference.name, reference.take))
            return None if take is None else _pick(reference, take)
        active = self._read(reference.name)
        if active is not None and active.by == "use":
            split = names.split_take(active.take)
            if below is None or (split is not None and split[1] < below):
                return _pick_active(reference, active)
        live = tuple(take.folder for take in self._live(reference.name, below))
        if live:
            return Unfinished(jobs=live)
        newest = self._newest_completed(reference.name, below)
        if newest is not None:
            return _pick(reference, newest)
        ended = [_end_of(take) for _, take in zip(range(_MAX_TOLD), self._takes(reference.name, below), strict=False)]
        if ended:
            raise _missing(reference, f"no take of {names.shown(reference.name)} is completed: {', '.join(ended)}")
        if below is not None:
            raise _missing(reference, f"there is no take of {names.shown(reference.name)} before {own.name}")
        return None

    def _wait_for(self, name: str, asked: _Use) -> None:
        """Return where a take may still be completed.

        Raises:
            JobError: none will be.
        """
        shown = names.shown(name)
        if asked.take is not None:
            raise JobError("not-found", f"there is no {names.take_folder(shown, asked.take)}")
        newest = next(self._takes(name, None), None)
        if newest is None:
            raise JobError("not-found", f"there is no take of {shown}")
        if next(self._live(name, None), None) is None:
            raise JobError("missing-picture", f"no take of {shown} is completed: {_end_of(newest)}")

    # --- takes, as their journals tell of them ---

    def _newest_completed(self, name: str, below: int | None) -> _Take | None:
        """Return the newest take that has its pictures; one that was made to compare is none of them."""
        for take in self._takes(name, below):
            if take.ledger.state is State.COMPLETED and take.ledger.done and take.ledger.source != "replay":
                return take
        return None

    def _live(self, name: str, below: int | None) -> Iterator[_Take]:
        """Yield the takes that have not ended; with `below` those before that number only."""
        jobs = [job for job in list(self._spool.live.values()) if job.stem == name]
        for job in sorted(jobs, key=lambda job: job.take):
            take = self._take(job.name)
            if take is not None and take.live and (below is None or job.take < below):
                yield take

    def _takes(self, name: str, below: int | None) -> Iterator[_Take]:
        """Yield the takes that stand, newest first; with `below` those before that number only."""
        for folder in self._spool.newest(name):
            split = names.split_take(folder)
            if split is not None and (below is None or split[1] < below):
                take = self._take(folder)
                if take is not None:
                    yield take

    def _take(self, folder: str) -> _Take | None:
        split = names.split_take(folder)
        job = self._spool.live.get(folder)
        ledger = job.ledger if job is not None else self._spool.ledger_of(folder)
        if split is None or ledger is None or ledger.origin is None or (job is not None and job.gone):
            return None
        return _Take(folder=folder, number=split[1], ledger=ledger, live=job is not None and not ledger.ended)

    # --- NAME.active.toml ---

    def _read(self, name: str) -> Active | None:
        """Return what NAME.active.toml says, None where it is not there."""
        path = self._spool.settings.outputs_dir / f"{name}{_SUFFIX}"
        try:
            data = foreign.read(path, _MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _broken(path, str(error.strerror)) from error
        with suppress(ValueError, AttributeError):
            schema = tomltext.load(data).get("schema")
            if isinstance(schema, int) and schema > SCHEMA:
                found = f"outputs/{names.shown(path.name)} has schema {schema}; this hotfolder reads up to {SCHEMA}"
                raise JobError("newer-schema", found)
        try:
            return Active.load(data)
        except (ValidationError, TypeError) as error:
            raise _broken(path, "it is not as it was written") from error
        except ValueError as error:
            raise _broken(path, str(error)) from error

    def _write(self, active: Active) -> None:
        outputs = self._spool.settings.outputs_dir
        durable.write(outputs / f"{active.job}{_SUFFIX}", active.dump())
        durable.sync_folder(outputs)


def parse(text: str) -> Reference | None:
    """Read what a job names by "@..."; None where it means nothing.

    "@mug", "@mug_take01", and with the number of a candidate "@mug/2", "@mug_take01/2".
    """
    said, slash, number = text.removeprefix(MARK).partition("/")
    if not said.strip(" .") or _NUMBERED.search(said) or (slash and not _NUMBER.match(number)):
        return None
    split = names.split_take(said)
    name, take = (names.make_safe(split[0]), split[1]) if split else (names.safe_name(said), None)
    return Reference(text=text, name=name, take=take, candidate=int(number) if slash else None)


def _read_use(path: Path, take: int | None) -> _Use:
    """Read a `.use`: empty, or TOML.

    Args:
        take: the one that its name says, as in mug_take02.use.

    Raises:
        HotfolderError: no TOML, or it asks for what cannot be.
    """
    try:
        table = tomltext.parse(foreign.read(path, tomltext.MAX_JOB_BYTES)).table
    except PermissionError as error:
        raise HotfolderError("cannot-write", f"the file cannot be read: {error.strerror}") from error
    said: dict[str, int] = {}
    for key, value in table.items():
        if key not in {"take", "picture"}:
            raise HotfolderError("unknown-key", f"unknown key {_quoted(key)}; take and picture are accepted")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise HotfolderError("bad-value", f"{key} = {_quoted(value)}: a number from 1 on is accepted")
        said[key] = value
    if take is not None and said.setdefault("take", take) != take:
        raise HotfolderError("bad-value", f"take = {said['take']}: the name of the file says take {take}")
    return _Use(take=said.get("take"), picture=said.get("picture"))


def _by_newest(name: str, take: _Take) -> Active:
    return Active(job=name, take=take.folder, by="newest", files=_files(take.folder, take.ledger))


def _files(folder: str, ledger: Ledger) -> tuple[ActiveFile, ...]:
    """Return the finished pictures of a take, by candidate."""
    done = dict(ledger.done)
    return tuple(
        ActiveFile(candidate=number, file=_path(folder, output), sha256=output.sha256)
        for number in sorted(done)
        for output in done[number]
    )


def _path(folder: str, output: Output) -> str:
    return f"outputs/{folder}/{output.file}"


def _pick(reference: Reference, take: _Take) -> Finished | Unfinished:
    """Choose the candidate's first picture, or the first of all, as soon as it is sure which one that is."""
    done = dict(take.ledger.done)
    number = reference.candidate if reference.candidate is not None else min(done, default=1)
    is_sure = reference.candidate is not None or number == 1 or not take.live
    if number in done and is_sure:
        output = done[number][0]
        return Finished(file=_path(take.folder, output), sha256=output.sha256)
    if take.live:
        return Unfinished(jobs=(take.folder,))
    without = "a finished picture" if reference.candidate is None else f"a picture {number}"
    raise _missing(reference, f"{_end_of(take)} without {without}")


def _pick_active(reference: Reference, active: Active) -> Finished:
    wanted = reference.candidate if reference.candidate is not None else active.picture
    for one in active.files:
        if wanted in {None, one.candidate}:
            return Finished(file=one.file, sha256=one.sha256)
    which = "picture" if wanted is None else f"picture {wanted}"
    raise _missing(
        reference, f"outputs/{names.shown(active.job)}{_SUFFIX} names no {which} of {names.shown(active.take)}"
    )


def _stands(outputs: Path, file: str) -> bool:
    """Whether a picture is there, as a file in a folder and not behind a link."""
    path = outputs.joinpath(*file.split("/")[1:])
    try:
        return stat.S_ISDIR(path.parent.lstat().st_mode) and stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _end_of(take: _Take) -> str:
    return f"{names.shown(take.folder)} ended {take.ledger.state.value}"


def _missing(reference: Reference, why: str) -> JobError:
    text = f"{names.shown(reference.text)}: {why}"
    return JobError("missing-picture", text, "make it, or name another picture, then resume or drop this job again")


def _broken(path: Path, why: str) -> JobError:
    text = f"outputs/{names.shown(path.name)} cannot be read: {names.shown(why)[:_MAX_SHOWN]}"
    return JobError("changed-file", text, "remove it, or drop a .use: it is written again")


def _quoted(value: Any) -> str:  # noqa: ANN401 - what a file may hold
    return names.shown(value if isinstance(value, str) else repr(value))[:_MAX_SHOWN]
