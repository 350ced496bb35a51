"""hotfolder.toml and the environment -> one frozen `Settings`, read once and passed on.

The only module that reads the environment.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hotfolder import tomltext
from hotfolder.errors import SettingsError
from hotfolder.names import cut, short, shown
from hotfolder.workspace import FILE_NAME

#: Of what is wrong, as much is told.
_MAX_PROBLEMS: Final = 10
ENV_PREFIX: Final = "HOTFOLDER_"
#: Environment names of ours that are no settings.
_OTHER_ENV: Final = frozenset({"HOTFOLDER_WORKSPACE"})

Seconds = Annotated[float, Field(ge=0, le=86_400)]


class _Table(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class InboxSettings(_Table):
    """How drops are taken in."""

    #: What becomes of a picture that a job named: "keep", or "remove-after" every job that named it has ended.
    sources: Literal["keep", "remove-after"] = "keep"
    #: How long a file must stand unchanged; None: 0.3 s on a local file system, 5 s on a network one.
    settle_s: Annotated[float, Field(ge=0.01, le=600)] | None = None
    #: How often the inbox is scanned without any event; None: 1 s local, 3 s network.
    scan_s: Annotated[float, Field(ge=0.05, le=600)] | None = None
    #: How long a job waits for a picture it names.
    source_timeout_s: Seconds = 600.0
    #: Whether file-system events wake the scan; without them it only comes round every `scan_s`.
    events: bool = True
    #: Folders outside the inbox from which jobs may take pictures by absolute path.
    allowed_roots: tuple[Path, ...] = ()
    #: A picture larger than this is refused.
    max_picture_mb: Annotated[int, Field(ge=1, le=100_000)] = 512
    #: A picture with more pixels than this (in millions) is refused before it is decoded.
    max_megapixels: Annotated[int, Field(ge=1, le=10_000)] = 128


class WorkerSettings(_Table):
    """The thread that owns the GPU."""

    #: The most one denoising step, encode or decode may take before the process is taken as hung.
    step_deadline_s: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    #: The same for loading a model.
    load_deadline_s: Annotated[float, Field(ge=1, le=86_400)] = 3600.0
    #: GPU memory to use for models, in GB; None: what is free at the start, less 2 GB.
    vram_gb: Annotated[float, Field(gt=0, le=10_000)] | None = None
    #: Threads that run what needs no GPU; None: half of the cores, at most 4.
    cpu_threads: Annotated[int, Field(ge=1, le=64)] | None = None


class BatchSettings(_Table):
    """What one job may ask for."""

    #: A job with more candidates than this is refused.
    max_candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


class OutputSettings(_Table):
    """What is written."""

    #: No new cell starts while the disk of `outputs/` has less free than this.
    min_free_gb: Annotated[float, Field(ge=0, le=100_000)] = 1.0


class Settings(_Table):
    """All settings of one workspace. Every key of hotfolder.toml is optional."""

    workspace: Path
    #: The preset of a job that names none.
    default_preset: str = "tiny"
    #: "auto" takes the first CUDA device, else the CPU.
    device: str = "auto"
    #: Threads of the CPU computation; part of what makes pixels repeatable. None: one per core.
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    #: Where models are kept, below the workspace if relative. An HF_HOME in the environment goes before it.
    models_dir: Path = Path("models")
    #: Whether models that are not on this machine may be downloaded.
    download: bool = True
    # Made without validation, for which each class would have to be built: all that is in them is their own defaults.
    inbox: InboxSettings = InboxSettings.model_construct()
    worker: WorkerSettings = WorkerSettings.model_construct()
    outputs: OutputSettings = OutputSettings.model_construct()
    batch: BatchSettings = BatchSettings.model_construct()

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value, re.ASCII):
            raise ValueError("accepted are auto, cpu, cuda and cuda:N")
        return value

    @field_validator("models_dir")
    @classmethod
    def _nameable(cls, value: Path) -> Path:
        try:
            home = value.expanduser()
        except (RuntimeError, ValueError) as error:
            raise ValueError("there is no home folder of this name") from error
        if "\0" in str(home):
            raise ValueError("a path holds no NUL")
        return value

    @property
    def inbox_dir(self) -> Path:
        """Where jobs are dropped."""
        return self.workspace / "jobs_inbox"

    @property
    def outputs_dir(self) -> Path:
        """Where each job gets its folder."""
        return self.workspace / "outputs"

    @property
    def presets_dir(self) -> Path:
        """The workspace's own presets."""
        return self.workspace / "presets"

    @property
    def cache_dir(self) -> Path:
        """What can be made again: live markers, the history index."""
        return self.workspace / ".hotfolder"

    @property
    def assets_dir(self) -> Path:
        """The workspace's own logos and fonts."""
        return self.presets_dir / "assets"

    @property
    def processed_dir(self) -> Path:
        """Where `to = "processed"` puts finished pictures."""
        return self.outputs_dir / "processed"

    @property
    def models_path(self) -> Path:
        """`models_dir` as an absolute path."""
        return self.workspace / self.models_dir.expanduser()

    @property
    def file(self) -> Path:
        """The settings file, which need not exist."""
        return self.workspace / FILE_NAME

    @classmethod
    def read(cls, workspace: Path, environ: Mapping[str, str] = os.environ) -> Self:
        """Read hotfolder.toml of `workspace`; HOTFOLDER_DEVICE, HOTFOLDER_INBOX_SETTLE_S and so on go before it.

        Raises:
            SettingsError: names the file or variable, the key, what was found and what is accepted.
        """
        file = workspace / FILE_NAME
        table = _read_table(file)
        if "workspace" in table:
            raise SettingsError(
                "bad-settings", f"{file}: unknown key workspace", "the workspace is the folder it lies in"
            )
        origins = _lay_environment(table, environ)
        try:
            return cls(workspace=workspace.resolve(), **table)
        except ValidationError as error:
            raise _explain(error, file, origins) from error


def prepare_models(settings: Settings) -> Path:
    """Make the models folder and point Hugging Face at it; to be called before anything of theirs is imported.

    An HF_HOME that is set already is kept. Returns the folder that is used.
    """
    home = Path(os.environ.setdefault("HF_HOME", str(settings.models_path)))
    # Whoever only looks may not write there; whoever loads a model is told when it comes to that.
    for folder in (settings.models_path, home):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    return home


def hub_cache() -> Path:
    """Return the folder in which Hugging Face keeps what was downloaded, as their library finds it."""
    told = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(told or f"{os.environ['HF_HOME']}/hub")).expanduser()


def _read_table(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError("bad-settings", f"{file} cannot be read: {error.strerror}") from error
    try:
        return tomltext.load(text)
    except ValueError as error:
        raise SettingsError("bad-settings", f"{file} is no TOML: {cut(shown(str(error)))}") from error


def _lay_environment(table: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Lay HOTFOLDER_* over `table`; return which variable gave which dotted key."""
    names = {f"{ENV_PREFIX}{'_'.join(path)}".upper(): path for path in _keys()}
    origins = {}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or name in _OTHER_ENV:
            continue
        if name not in names:
            known = ", ".join(sorted(set(names) - _OTHER_ENV))
            raise SettingsError("bad-settings", f"environment: unknown variable {name}", f"known are {known}")
        *tables, last = names[name]
        target = table
        for part in tables:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                found = f"{FILE_NAME}: {part} = {short(target)}: a table is accepted"
                raise SettingsError("bad-settings", found, f"write [{part}] above its keys")
        target[last] = _parse_value(value)
        origins[".".join(names[name])] = name
    return origins


def _keys() -> Iterator[tuple[str, ...]]:
    """Yield the path of every key: (key,), or (table, key)."""
    for key, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Table):
            yield from ((key, inner) for inner in field.annotation.model_fields)
        else:
            yield (key,)


def _parse_value(text: str) -> object:
    """A variable's value is read as TOML where it is TOML (true, 3, ["/a"]), else taken as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _explain(error: ValidationError, file: Path, origins: Mapping[str, str]) -> SettingsError:
    lines = []
    for item in error.errors()[:_MAX_PROBLEMS]:
        key = ".".join(str(part) for part in item["loc"])
        where = f"environment {origins[key]}" if key in origins else str(file)
        if item["type"] == "extra_forbidden":
            known = [".".join(path) for path in _keys() if path != ("workspace",)]
            near = difflib.get_close_matches(key, known, n=1)
            lines.append(f"{where}: unknown key {cut(shown(key))}" + (f", did you mean {near[0]}?" if near else ""))
        else:
            text = item["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {cut(shown(key))} = {short(item['input'])}: {text[0].lower()}{text[1:]}")
    return SettingsError("bad-settings", "; ".join(lines), "docs/operations.md lists every key")
