"""Presets: which model, which kind, which settings; laid over each other, the origin of each value shown.

The shipped ones travel with the package; a workspace's own are laid over them by name.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from hotfolder import loras, tomltext
from hotfolder.errors import SettingsError
from hotfolder.names import cut, short, shown

#: `extends` deeper than this is a mistake.
_MAX_EXTENDS: Final = 8
#: Of what is wrong with a preset, as much is told.
_MAX_PROBLEMS: Final = 10
_MAX_SERVICE: Final = 200
#: FLUX packs 2 x 2 latents of 8 x 8 pixels into a token.
SIZE_STEP: Final = 16

#: What a model that makes pictures does.
Kind = Literal["text2img", "kontext", "fill", "control", "redux"]
#: What a model does that a stage asks: to find, to measure, to compare, to enlarge.
HelperKind = Literal["detect", "depth", "pose", "clip", "upscale"]
HELPER_KINDS: Final = frozenset(get_args(HelperKind))


class _Table(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


def _names_weights(file: str) -> str:
    if not file.endswith(".safetensors"):
        raise ValueError("a file that ends in .safetensors is accepted: other formats can run code when read")
    if file.startswith("/") or ".." in file.split("/"):
        raise ValueError("a file inside the repo is accepted")
    return file


class Model(_Table):
    """Where a model's weights come from and how they are loaded. Comes only from a preset, never from a job."""

    #: "owner/name" on the Hugging Face Hub, a folder (absolute, or `./below/the/workspace`), or
    #: "hotfolder/NAME" for the tiny ones that the project makes itself.
    repo: Annotated[str, Field(min_length=1, max_length=400)]
    #: Branch, tag or commit on the Hub.
    revision: str = "main"
    #: The variant of the weight files, such as "fp16".
    variant: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    #: Redux only: the text2img model that paints what the prior says, of the same dtype.
    base: str | None = None
    base_revision: str = "main"
    #: Upscale only: the one file of the repo that holds the weights, of the ESRGAN family.
    file: Annotated[str, Field(max_length=400), AfterValidator(_names_weights)] | None = None

    @property
    def key(self) -> str:
        """The same key is the same loaded model."""
        parts = [f"{self.repo}@{self.revision}", self.dtype]
        if self.variant:
            parts.append(self.variant)
        if self.base:
            parts.append(f"{self.base}@{self.base_revision}")
        if self.file:
            parts.append(self.file)
        return " ".join(parts)


class Lora(_Table):
    """A small change of a model's weights, that a job may switch on. Comes only from a preset, never from a job."""

    #: As `Model.repo`.
    repo: Annotated[str, Field(min_length=1, max_length=400)]
    revision: str = "main"
    #: The file of the repo that holds it; by default as diffusers calls it.
    file: Annotated[str, Field(max_length=400), AfterValidator(_names_weights)] = "pytorch_lora_weights.safetensors"


#: What a LoRA is called.
LoraName = Annotated[str, Field(pattern=f"^{loras.NAME}$")]


def _of_whole_tokens(size: str) -> str:
    if any(int(side) % SIZE_STEP for side in size.split("x")):
        raise ValueError(f"sides that are multiples of {SIZE_STEP} are accepted")
    return size


#: Width and height, such as "128x128".
SizeName = Annotated[str, Field(pattern=r"^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$"), AfterValidator(_of_whole_tokens)]


class Limits(_Table):
    """What a small model was taught, where that is little. It is never asked for more, and notices say so."""

    #: The only sizes that it makes; none: any.
    sizes: Annotated[tuple[SizeName, ...], Field(max_length=100)] = ()
    #: All words that it knows, small letters; none: any.
    words: frozenset[str] = frozenset()
    #: The preset that draws what lies beyond.
    beyond: str | None = None


class Preset(_Table):
    """One preset, whole: what it extends has been laid under it."""

    name: str
    kind: Literal[Kind, HelperKind]
    title: str = ""
    licence: str = ""
    #: What must be downloaded once, in GB; 0 where nothing is.
    download_gb: Annotated[float, Field(ge=0)] = 0.0
    #: Where to read about the model, and accept its licence.
    url: str = ""
    model: Model
    #: Tokens of the prompt that the text encoder is given; part of what makes pixels repeatable.
    max_sequence_length: Annotated[int, Field(ge=16, le=2048)] = 512
    limits: Limits = Limits()
    #: What a job may switch on by `loras`.
    loras: Mapping[LoraName, Lora] = Field(default_factory=dict)
    #: Laid under a job's own keys: steps, guidance, width, height ...
    keys: Mapping[str, Any] = Field(default_factory=dict)
    #: Dotted key -> the file it came from.
    origins: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("model")
    @classmethod
    def _fits_the_kind(cls, model: Model, known: ValidationInfo) -> Model:
        kind = known.data.get("kind")
        if model.file is not None and kind != "upscale":
            raise ValueError("file is accepted for the kind upscale only")
        if model.base is not None and kind in HELPER_KINDS:
            raise ValueError("base is accepted for the kind redux only")
        return model

    @field_validator("loras", "keys")
    @classmethod
    def _only_of_what_makes_pictures(cls, found: Mapping[str, Any], known: ValidationInfo) -> Mapping[str, Any]:
        if found and known.data.get("kind") in HELPER_KINDS:
            text = f"a preset of the kind {known.data['kind']} makes no pictures and has no {known.field_name}"
            raise ValueError(text)
        return found


@dataclass(frozen=True, kw_only=True)
class Presets:
    """All presets that a workspace has. Files are read when asked for, so an edited preset serves the next job."""

    shipped: Path
    own: Path

    @classmethod
    def of(cls, own: Path) -> Self:
        """The shipped presets with those in folder `own` laid over them."""
        return cls(shipped=shipped_dir(), own=own)

    def names(self) -> list[str]:
        """Return the names of all presets, sorted; those to be had only as a service are left out."""
        return [name for name, file in sorted(self._files().items()) if "service" not in _read(file)]

    def get(self, name: str) -> Preset:
        """Return the preset `name`.

        Raises:
            SettingsError: `unknown-preset`, `service-only`, or `bad-preset` naming file and key.
        """
        first = file_of(name, self.own, self.shipped)
        if first is None:
            near = difflib.get_close_matches(name, self._files(), n=1)
            did = f"did you mean {near[0]!r}? " if near else ""
            raise SettingsError(
                "unknown-preset",
                f"there is no preset {cut(shown(name))!r}",
                f"{did}There are: {', '.join(self.names())}",
            )
        layers = list(self._layers(first))
        service = layers[0][1].get("service")
        if service is not None:
            raise SettingsError(
                "service-only",
                f"preset {name!r}: {shown(str(service))[:_MAX_SERVICE]}",
                f"the nearest preset is {short(layers[0][1].get('nearest', 'flux-dev'))}",
            )
        merged: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for file, table in reversed(layers):
            _lay(merged, origins, table, str(file))
        merged.pop("extends", None)
        origins.pop("extends", None)
        try:
            return Preset(name=name, origins=origins, **merged)
        except (ValidationError, TypeError) as error:
            raise _explain(error, layers[0][0], origins) from error

    def _files(self) -> dict[str, Path]:
        return files_in(self.shipped) | files_in(self.own)

    def _layers(self, file: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
        """From the preset itself down what it extends. A workspace's `tiny` extending `tiny` means the shipped one."""
        for _ in range(_MAX_EXTENDS):
            table = _read(file)
            yield file, table
            below = table.get("extends")
            if below is None:
                return
            folders = [self.shipped] if below == file.stem else [self.own, self.shipped]
            beneath = file_of(str(below), *folders)
            if beneath is None or not beneath.is_file() or beneath == file:
                raise SettingsError(
                    "bad-preset",
                    f"{file}: extends = {short(below)}, which does not exist",
                    f"there are: {', '.join(sorted(self._files()))}",
                )
            file = beneath
        raise SettingsError("bad-preset", f"{file}: extends goes round in a circle", "a preset may not extend itself")


def shipped_dir() -> Path:
    """Return the folder of the shipped presets: in the wheel beside this file, in a checkout at its root."""
    inside = Path(__file__).parent / "presets_shipped"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "presets"


def file_of(name: str, *folders: Path) -> Path | None:
    """Return the file of this name in the first of these folders that has one.

    Asked for every job, so without a listing; a name is never a path.
    """
    if "/" in name or "\0" in name:
        return None
    files = (folder / f"{name}.toml" for folder in folders)
    return next((file for file in files if os.path.lexists(file)), None)


def files_in(folder: Path) -> dict[str, Path]:
    """Return name -> file, by name alone."""
    with suppress(OSError):
        return {name[: -len(".toml")]: folder / name for name in sorted(os.listdir(folder)) if name.endswith(".toml")}
    return {}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomltext.load(file.read_bytes())
    except ValueError as error:
        raise SettingsError("bad-preset", f"{file} is no TOML: {cut(shown(str(error)))}", "mend the file") from error
    except OSError as error:
        raise SettingsError("bad-preset", f"{file} cannot be read: {error.strerror}", "") from error


def _lay(
    merged: dict[str, Any], origins: dict[str, str], table: Mapping[str, Any], file: str, prefix: str = ""
) -> None:
    """Lay `table` over `merged`, table by table, and note where each value came from."""
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict):
            below = merged.get(key)
            inner = merged[key] = below if isinstance(below, dict) else {}
            _lay(inner, origins, value, file, f"{dotted}.")
        else:
            merged[key] = value
            origins[dotted] = file


def _keys() -> list[str]:
    """Return every key of a preset's file, those of its tables dotted; [keys] has those of a job."""
    own = [key for key in Preset.model_fields if key not in {"name", "origins"}]
    below = [f"model.{key}" for key in Model.model_fields] + [f"limits.{key}" for key in Limits.model_fields]
    below += [f"loras.NAME.{key}" for key in Lora.model_fields]
    return ["extends", *own, *below]


def _explain(error: ValidationError | TypeError, file: Path, origins: Mapping[str, str]) -> SettingsError:
    if isinstance(error, TypeError):
        return SettingsError("bad-preset", f"{file}: {error}", "name and origins are not keys of a preset")
    lines = []
    for item in error.errors()[:_MAX_PROBLEMS]:
        key = ".".join(str(part) for part in item["loc"])
        where, named = origins.get(key, str(file)), cut(shown(key))
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, _keys(), n=1)
            lines.append(f"{where}: unknown key {named}" + (f", did you mean {near[0]}?" if near else ""))
        elif item["type"] == "missing":
            lines.append(f"{where}: {named} is missing")
        else:
            lines.append(f"{where}: {named} = {short(item['input'])}: {item['msg']}")
    return SettingsError("bad-preset", "; ".join(lines), "docs/presets.md lists every key")
