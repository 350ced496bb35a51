"""Where a model's files are on this machine, whether they are whole, and what they hold. Looks at files only."""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from hotfolder.errors import SettingsError
from hotfolder.presets import HELPER_KINDS, Model, Preset
from hotfolder.settings import Settings, hub_cache, prepare_models

State = Literal["ready", "missing", "built on first use"]

#: Changes when the recipe of the tiny models does: they are built anew, and their pixels are others.
TINY_VERSION: Final = "7"
_TINY_OWNER: Final = "hotfolder/"
#: Keys of a config that say who saved it, not what it is: the same text encoder differs in them from repo to repo.
_SAVED_BY: Final = frozenset({"_name_or_path", "_diffusers_version", "transformers_version", "torch_dtype", "dtype"})
#: Libraries that a part of a pipeline may come from; "flux" is a module of diffusers.
_LIBRARIES: Final = frozenset({"diffusers", "transformers", "flux"})
_SHA256_HEX: Final = 64
#: What is surely a name on the Hub; what else may be one, the Hub's own library knows.
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*/[A-Za-z0-9]+([._-][A-Za-z0-9]+)*")
#: Without these a pipeline that paints cannot read a prompt.
TEXT_PARTS: Final = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
#: Where transformers keeps how a picture is made ready for a model.
_PROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")
#: The files of a pipeline, as patterns: those beside model_index.json are copies of its weights for other programs.
_PIPELINE_FILES: Final = ("model_index.json", "*/*")
#: Of a folder as transformers saves one: the small ones, and the weights.
HELPER_CONFIGS: Final = ("*.json", "*.txt")
HELPER_WEIGHTS: Final = "model*.safetensors"


@dataclass(frozen=True, kw_only=True)
class Latents:
    """What the VAE of a checkpoint makes of a picture."""

    #: Numbers of one token of the transformer: 2 x 2 latents of so many channels.
    packed: int
    #: Pixels along a side of a latent.
    down: int


#: `in_channels` that a transformer must have for a kind, by the latents that it works on.
InChannels = Callable[[Latents], int]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A pipeline's folder, as diffusers saves one: model_index.json and a folder for each part."""

    repo: str
    folder: Path
    #: The commit on the Hub, or the version of a tiny model; empty for a plain folder.
    revision: str

    @property
    def root(self) -> Path:
        """What to delete to be rid of it; a snapshot of the Hub's cache holds only links."""
        return _root(self.folder)

    def parts(self) -> dict[str, str]:
        """Return the parts to be loaded, and the class of each, in the order of model_index.json.

        Raises:
            SettingsError: `bad-model`: the index is broken; `wrong-model`: a part is of a library that we do not load.
        """
        found = {}
        for name, value in self._json("model_index.json").items():
            match value:
                case [str(library), str(class_name)]:
                    pass
                case _:  # a setting, or a part that this pipeline does without
                    continue
            if library not in _LIBRARIES:
                raise SettingsError(
                    "wrong-model",
                    f"model {self.repo}: its {name} is a {class_name} of {library!r}",
                    f"parts are loaded from {', '.join(sorted(_LIBRARIES))} only",
                )
            found[name] = class_name
        return found

    def is_whole(self) -> bool:
        """Whether every part has its config and, where it has weights, all of their files."""
        if not (self.folder / "model_index.json").is_file():
            return False
        return all(_is_whole(self.folder / part) for part in self.parts())

    def check(self, pipeline: str, in_channels: InChannels | None) -> None:
        """Make sure that this is a checkpoint of the wanted kind; no weights are read.

        Args:
            pipeline: the class that model_index.json must name.
            in_channels: of the transformer; None where the pipeline has none.

        Raises:
            SettingsError: `wrong-model`, naming what was found and what is needed; `bad-model`: a config is broken.
        """
        found = self._json("model_index.json").get("_class_name")
        channels = needed = None
        if found == pipeline and in_channels is not None:
            channels, needed = self._json("transformer/config.json").get("in_channels"), in_channels(self._latents())
        if found == pipeline and channels == needed:
            lacking = [part for part in TEXT_PARTS if in_channels is not None and part not in self.parts()]
            if lacking:
                hint = "a checkpoint of the whole pipeline is needed"
                raise SettingsError("wrong-model", f"model {self.repo} has no {' and no '.join(lacking)}", hint)
            return
        has = needs = ""
        if channels != needed:
            has, needs = f" with in_channels = {channels}", f" with in_channels = {needed}"
        raise SettingsError(
            "wrong-model",
            f"model {self.repo} is a {found}{has}; needed is a {pipeline}{needs}",
            "set model.repo or kind of the preset so that they go together",
        )

    def identities(self, variant: str | None = None) -> dict[str, str]:
        """Return what each part holds, as a sha256: the same in two repos where the part is the same.

        The scheduler is left out: it holds no weights, and each pipeline has its own.
        """
        classes = self.parts()
        return {
            part: _identity(self.folder / part, classes[part], _weights(self.folder / part, variant))
            for part in classes
            if part != "scheduler"
        }

    def parameters(self, part: str, variant: str | None = None) -> int:
        """Return how many numbers the weights of `part` are; 0 for one without weights."""
        return sum(_count(file) for file in _weights(self.folder / part, variant))

    def _latents(self) -> Latents:
        match self._json("vae/config.json"):
            case {"latent_channels": int(channels), "block_out_channels": [*levels]} if levels:
                return Latents(packed=4 * channels, down=2 ** (len(levels) - 1))
            case _:
                found = f"model {self.repo}: its vae/config.json tells of no latents"
                raise SettingsError("bad-model", found, "a checkpoint whose vae is an AutoencoderKL is needed")

    def _json(self, name: str) -> dict[str, Any]:
        return _read_json(self.repo, self.folder / name)


@dataclass(frozen=True, kw_only=True)
class HelperFiles:
    """What a helper model is loaded from: a folder as transformers saves one, or one file of weights."""

    repo: str
    folder: Path
    #: As `Checkpoint.revision`.
    revision: str
    #: Below the folder; None: the folder is one of transformers.
    file: str | None = None

    @property
    def root(self) -> Path:
        """What to delete to be rid of it."""
        return _root(self.folder)

    def is_whole(self) -> bool:
        """Whether config, weights and the way to make a picture ready are here."""
        if self.file is not None:
            return (self.folder / self.file).is_file()
        if not any((self.folder / name).is_file() for name in _PROCESSORS):
            return False
        return (self.folder / "config.json").is_file() and _is_whole(self.folder) and bool(self._weights(None))

    def check(self, accepted: Collection[str]) -> str:
        """Return the class of the model; no weights are read.

        Raises:
            SettingsError: `wrong-model`: config.json names none of the `accepted` classes; `bad-model`: it is broken.
        """
        match _read_json(self.repo, self.folder / "config.json").get("architectures"):
            case [str(found), *_] if found in accepted:
                return found
            case [str(found), *_]:
                pass
            case _:
                found = "model of no known class"
        raise SettingsError(
            "wrong-model",
            f"model {self.repo} is a {found}; needed is a {' or a '.join(accepted)}",
            "set model.repo or kind of the preset so that they go together",
        )

    def identity(self, class_name: str, variant: str | None = None) -> str:
        """Return what it holds, as a sha256."""
        if self.file is not None:
            return sha256(self.folder / self.file)
        return _identity(self.folder, class_name, self._weights(variant))

    def parameters(self, variant: str | None = None) -> int:
        """Return how many numbers its weights are."""
        return sum(map(_count, self._weights(variant)))

    def _weights(self, variant: str | None) -> list[Path]:
        if self.file is not None:
            return [self.folder / self.file]
        # Beside them lie the same weights for other programs, such as open_clip_model.safetensors.
        return [file for file in _weights(self.folder, variant) if file.name.startswith("model")]


def repos_of(model: Model) -> tuple[tuple[str, str], ...]:
    """Return the checkpoints that a model is made of, as (repo, revision)."""
    own = (model.repo, model.revision)
    return (own, (model.base, model.base_revision)) if model.base else (own,)


def state(model: Model, settings: Settings) -> State:
    """Return whether a model can be used at once."""
    absent = [repo for repo, revision in repos_of(model) if not _is_here(repo, revision, settings)]
    if not absent or _is_helper_here(model, settings):
        return "ready"
    return "built on first use" if all(map(tiny_name, absent)) else "missing"


def find(repo: str, revision: str, settings: Settings) -> Checkpoint | None:
    """Return the checkpoint if it is on this machine, whole; nothing is downloaded or built.

    Args:
        repo: any form of `Model.repo`.

    Raises:
        SettingsError: `bad-preset`: it is none of these forms; `bad-model`, `wrong-model`: its index says so.
    """
    place = _place(repo, revision, "model_index.json", settings)
    if place is None:
        return None
    checkpoint = Checkpoint(repo=repo, folder=place[0], revision=place[1])
    return checkpoint if checkpoint.is_whole() else None


def find_helper(model: Model, settings: Settings) -> HelperFiles | None:
    """Return the files of a helper model if they are on this machine, whole; nothing is downloaded or built.

    Raises:
        SettingsError: `bad-preset`: its repo is none of the forms of `Model.repo`.
    """
    place = _place(model.repo, model.revision, model.file or "config.json", settings)
    if place is None:
        return None
    files = HelperFiles(repo=model.repo, folder=place[0], revision=place[1], file=model.file)
    return files if files.is_whole() else None


def _place(repo: str, revision: str, index: str, settings: Settings) -> tuple[Path, str] | None:
    """Return the folder of a repo and its revision; None where `index` has not been downloaded."""
    if name := tiny_name(repo):
        return tiny_folder(name, settings), TINY_VERSION
    if is_folder(repo):
        return settings.workspace / Path(repo).expanduser(), ""
    # Where Hugging Face keeps things is decided when it is imported, so the folder is set first.
    prepare_models(settings)
    if _HUB_NAME.fullmatch(repo) and not (hub_cache() / f"models--{repo.replace('/', '--')}").exists():
        return None  # nothing of it ever came here; to ask their library takes as long as all else that `check` does
    from huggingface_hub import try_to_load_from_cache

    try:
        file = try_to_load_from_cache(repo, index, revision=revision)
    except ValueError as error:
        found = f"model.repo = {repo!r} is no name on the Hub"
        raise SettingsError("bad-preset", found, 'accepted are "owner/name", "/a/folder" and "./a/folder"') from error
    if not isinstance(file, str):
        return None
    folder = Path(file).parents[len(Path(index).parts) - 1]
    return folder, folder.name


def missing(
    repo: str,
    settings: Settings,
    preset: Preset | None,
    reason: str = "",
    *,
    file: str | None = None,
    transient: bool = False,
    retry_after_s: float | None = None,
) -> SettingsError:
    """Return the error for a checkpoint that is not here: `model-missing`, telling how to get it.

    Args:
        preset: knows licence, size and where to read about the model.
        reason: why it could not be downloaded.
        file: the only one of the repo that is needed.
        transient: whether that may pass by itself, as `HotfolderError` says.
    """
    because = f": {reason}" if reason else ""
    is_lora = file is not None and (preset is None or preset.kind not in HELPER_KINDS)
    if is_lora:
        preset = None  # it tells nothing of what its LoRAs take
    if is_folder(repo):
        folder = settings.workspace / Path(repo).expanduser()
        if is_lora:
            found, hint = f"{folder} has no {file}", "set repo and file in the preset"
        else:
            found, hint = f"{folder} is no whole {_form(preset)}", "set model.repo"
        return SettingsError("model-missing", f"model {repo}: {found}", hint)
    home = prepare_models(settings)
    hints = [f'HF_HOME="{home}" hf download {repo} {file or _files_of(preset)}']
    if preset is not None and preset.download_gb:
        hints.append(f"{preset.download_gb:g} GB")
    url = preset.url if preset is not None and preset.url else f"https://huggingface.co/{repo}"
    licence = f" ({preset.licence})" if preset is not None and preset.licence else ""
    hints.append(f"if it asks for it, accept the licence{licence} at {url} and log in with: hf auth login")
    told = f"model {repo} is not on this machine{because}"
    return SettingsError("model-missing", told, "; ".join(hints), transient=transient, retry_after_s=retry_after_s)


def _form(preset: Preset | None) -> str:
    """What a folder must be."""
    if preset is not None and preset.kind in HELPER_KINDS:
        return f"folder with {preset.model.file}" if preset.model.file else "transformers folder"
    return "diffusers folder"


def _files_of(preset: Preset | None) -> str:
    """The arguments of `hf download` that name what is needed of a repo."""
    if preset is None or preset.kind not in HELPER_KINDS:
        return " ".join(f'--include "{pattern}"' for pattern in _PIPELINE_FILES)
    return preset.model.file or " ".join(f'--include "{pattern}"' for pattern in (*HELPER_CONFIGS, HELPER_WEIGHTS))


def tiny_name(repo: str) -> str | None:
    """Return the name of a tiny model ("hotfolder/NAME"), else None."""
    return repo.removeprefix(_TINY_OWNER) if repo.startswith(_TINY_OWNER) else None


def tiny_folder(name: str, settings: Settings) -> Path:
    """Return where a tiny model is, or will be."""
    return settings.models_path / "tiny" / TINY_VERSION / name


def is_folder(repo: str) -> bool:
    """Whether a repo is a folder on this machine rather than a name on the Hub."""
    return repo.startswith(("/", "./", "../", "~"))


def fingerprint(identities: Iterable[Mapping[str, str]]) -> str:
    """Return one sha256 for all that a model is made of."""
    lines = sorted(f"{part} {sha256}\n" for parts in identities for part, sha256 in parts.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_here(repo: str, revision: str, settings: Settings) -> bool:
    try:
        return find(repo, revision, settings) is not None
    except SettingsError:
        return False  # why, is said when it is used


def _is_helper_here(model: Model, settings: Settings) -> bool:
    try:
        return find_helper(model, settings) is not None
    except SettingsError:
        return False


def _root(folder: Path) -> Path:
    return folder.parents[1] if folder.parent.name == "snapshots" else folder


def _read_json(repo: str, file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError("bad-model", f"model {repo}: {file} is missing or broken", str(error)) from error


def _is_whole(part: Path) -> bool:
    # tokenizer_config.json, scheduler_config.json, preprocessor_config.json; config.json where there are weights.
    if not any(part.glob("*config.json")):
        return False
    wanted = {name for index in part.glob("*.safetensors.index.json") for name in _shards(index)}
    has_weights = (part / "config.json").is_file()
    return all((part / name).is_file() for name in wanted) and (not has_weights or any(part.glob("*.safetensors")))


def _shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return {"(the index is broken)"}


def _identity(part: Path, class_name: str, weights: Iterable[Path]) -> str:
    lines = [class_name]
    for file in sorted(part.glob("*")):
        if file.name == "config.json":
            config = json.loads(file.read_bytes())
            content = json.dumps({key: config[key] for key in sorted(config.keys() - _SAVED_BY)})
            lines.append(f"{file.name} {hashlib.sha256(content.encode()).hexdigest()}")
        elif file.suffix in {".json", ".txt", ".model"} and not file.name.endswith(".index.json"):
            lines.append(f"{file.name} {sha256(file)}")
    lines += [sha256(file) for file in weights]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _weights(part: Path, variant: str | None) -> list[Path]:
    """The weight files of a part that are loaded: those of the variant, where the part has it, else the plain ones."""
    files = sorted(part.glob("*.safetensors"))
    special = [file for file in files if variant and f".{variant}" in file.name]
    return special or [file for file in files if file.name.count(".") == 1]


def sha256(file: Path) -> str:
    """Return the hash of a file, computed once as long as it stays the same."""
    real = file.resolve()
    # The Hub's cache names large files by their sha256: nothing has to be read.
    if len(real.name) == _SHA256_HEX and real.parent.name == "blobs":
        return real.name
    stat = real.stat()
    return _hash(real, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash(file: Path, _size: int, _mtime_ns: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _count(file: Path) -> int:
    """Count the numbers in a safetensors file by its header: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, file.stat().st_size)))
        return sum(_product(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 0  # broken, as loading it will say


def _product(shape: Iterable[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
