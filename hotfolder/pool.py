"""Which models are in memory: loaded through one door, parts of the same content shared, the longest unused put out."""

import gc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any, Final

from hotfolder import adapters, download, loading, models, tiny
from hotfolder.engine import Tick, UsedLora, no_tick
from hotfolder.errors import SettingsError
from hotfolder.helpers.helper import Helper, Ready
from hotfolder.kinds.kind import Kind
from hotfolder.models import Checkpoint, HelperFiles, InChannels
from hotfolder.presets import Model
from hotfolder.settings import Settings

_GB: Final = 1_000_000_000
#: Left free on a GPU, in GB, for what a picture needs besides the model.
_ROOM_GB: Final = 2
_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Digits of the sha256 by which a LoRA is called beside its model.
_LORA_NAME: Final = 16


class Offload(IntEnum):
    """Where the weights of a model wait."""

    #: On the device.
    NONE = 0
    #: In main memory; a whole part comes to the device when it is its turn.
    MODEL = 1
    #: In main memory; one layer after the other comes to the device.
    SEQUENTIAL = 2


@dataclass(kw_only=True)
class Loaded:
    """A model in memory."""

    kind: Kind
    #: The diffusers pipeline that paints.
    pipe: Any
    #: The one that conditions it, for redux; else None.
    prior: Any
    #: Identities (content and dtype) of the parts it uses.
    parts: frozenset[str]
    #: Identity of its text encoders and tokenizers together.
    text: str
    #: What is known of it: repo, revision, sha256, dtype ...
    facts: Mapping[str, str]
    offload: Offload = Offload.NONE
    #: What is known of the LoRAs that are switched on; "" where none is.
    loras: str = ""
    #: Pictures of this many pixels and more are decoded in tiles, since such a one ran out of memory.
    tiles_from: int | None = None
    #: Pipelines of other classes around the same parts.
    others: dict[str, Any] = field(default_factory=dict)

    def pipe_for(self, class_name: str | None) -> Any:
        """Return the pipeline, or one of another class around the same parts.

        Each has a scheduler of its own: it counts steps, and two pipelines count differently.
        """
        import diffusers

        if class_name is None:
            return self.pipe
        if class_name not in self.others:
            scheduler = type(self.pipe.scheduler).from_config(self.pipe.scheduler.config)
            other = getattr(diffusers, class_name)(**self.pipe.components | {"scheduler": scheduler})
            other.set_progress_bar_config(disable=True)
            self.others[class_name] = other
        return self.others[class_name]

    def reset(self) -> None:
        """Forget what a picture left behind: caches of its steps, and parts that are on the device out of turn.

        The pipeline does it at the end of a picture, but not where it is left by an exception.
        """
        for pipe in (self.pipe, *self.others.values()):
            pipe.maybe_free_model_hooks()


@dataclass(frozen=True, kw_only=True)
class LoadedHelper:
    """A helper model in memory."""

    helper: Helper
    ready: Ready
    #: As in `Loaded`.
    parts: frozenset[str]
    facts: Mapping[str, str]
    #: Helpers are small: they are on the device, or they are not loaded.
    offload: Offload = Offload.NONE


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A checkpoint that a model needs, and what it must be."""

    repo: str
    revision: str
    variant: str | None
    pipeline: str
    in_channels: InChannels | None


class Pool:
    """The models in memory. Used by the one GPU thread only.

    Args:
        device: a torch.device.
    """

    def __init__(self, settings: Settings, device: Any) -> None:
        self._settings = settings
        self._device = device
        self._budget = _budget(settings, device)
        #: By `Model.key`; the longest unused first.
        self.models: dict[str, Loaded | LoadedHelper] = {}
        #: How often a model was loaded; one that was put out and came back counts again.
        self.loads = 0
        #: Identity -> part: a text encoder, a tokenizer ...
        self._parts: dict[str, Any] = {}
        #: LoRA -> the parts of a pipeline that it changes.
        self._lora_parts: dict[str, frozenset[str]] = {}

    @property
    def used_bytes(self) -> int:
        """Memory that the weights take."""
        return sum(map(loading.bytes_of, self._parts.values()))

    def get(
        self, kind: Kind, model: Model, preset: str, offload: Offload = Offload.NONE, tick: Tick = no_tick
    ) -> Loaded:
        """Return a model, loaded now if it is not in memory.

        Args:
            preset: where the model was named; for messages.
            offload: where its weights must wait, at least; more than NONE only where no other model is loaded.

        Raises:
            SettingsError: `model-missing`, `wrong-model`, `bad-model`, `bad-preset`, `disk-full`, `cannot-write`.
        """
        loaded = self.models.get(model.key)
        if not isinstance(loaded, Loaded) or loaded.kind is not kind:
            loaded = self._load(kind, model, preset, offload, tick)
        self._offload(loaded, offload)
        self._use(model, loaded)
        return loaded

    def get_helper(self, helper: Helper, model: Model, preset: str, tick: Tick = no_tick) -> LoadedHelper:
        """Return a helper model, loaded now if it is not in memory.

        Raises: as `get`.
        """
        loaded = self.models.get(model.key)
        if not isinstance(loaded, LoadedHelper) or loaded.helper is not helper:
            loaded = self._load_helper(helper, model, preset, tick)
        self._use(model, loaded)
        return loaded

    def switch_loras(self, loaded: Loaded, used: Sequence[UsedLora], preset: str, tick: Tick) -> None:
        """Switch these LoRAs of a model on, and all others off: they are changes beside its weights, not in them.

        Args:
            preset: where they were named; for messages.

        Raises:
            SettingsError: `model-missing`, `bad-model`, `disk-full`, `cannot-write`.
        """
        named = [(self._lora(loaded, one, preset, tick), one) for one in used]
        weights: dict[str, float] = {}
        for name, one in named:  # of two files with the same content both count
            weights[name] = weights.get(name, 0.0) + one.weight
        adapters.switch(loaded.pipe, weights)
        loaded.loras = ", ".join(f"{one.name}:{one.weight!r} ({one.lora.repo}, {name})" for name, one in named)

    def _lora(self, loaded: Loaded, used: UsedLora, preset: str, tick: Tick) -> str:
        """Make sure that a LoRA is in memory beside its model; return what it is called there, after its content."""
        wanted = Model(repo=used.lora.repo, revision=used.lora.revision, file=used.lora.file)
        files = self._files(wanted, preset, tick, lambda _: None)
        with loading.explained(files, "LoRA"):
            name = models.sha256(files.folder / used.lora.file)[:_LORA_NAME]
            if name not in self._lora_parts or not adapters.is_loaded(loaded.pipe, name, self._lora_parts[name]):
                try:
                    self._lora_parts[name] = adapters.load(loaded.pipe, name, files.folder, used.lora.file)
                except BaseException:
                    if loaded.offload:
                        self.keep_only(None)  # what brings its parts to the device was taken off, and not put back
                    raise
        return name

    def _use(self, model: Model, loaded: Loaded | LoadedHelper) -> None:
        self.models.pop(model.key, None)
        self.models[model.key] = loaded

    def keep_only(self, key: str | None) -> None:
        """Put out all models but this one; None: all."""
        for other in self.models.keys() - {key}:
            del self.models[other]
        self._prune()
        self._free()

    def _offload(self, loaded: Loaded, how: Offload) -> None:
        if loaded.offload >= how:
            return
        loaded.pipe.remove_all_hooks()
        if how is Offload.MODEL:
            loaded.pipe.enable_model_cpu_offload(device=self._device)
        else:
            loaded.pipe.enable_sequential_cpu_offload(device=self._device)
        loaded.offload = how

    def _load(self, kind: Kind, model: Model, preset: str, offload: Offload, tick: Tick) -> Loaded:
        wanted = _wanted(kind, model, preset)
        checkpoints = [self._checkpoint(each, preset, tick) for each in wanted]
        contents = [found.identities(each.variant) for found, each in zip(checkpoints, wanted, strict=True)]
        names = [{part: f"{sha256} {model.dtype}" for part, sha256 in content.items()} for content in contents]
        sizes = {
            name[part]: found.parameters(part, each.variant) * _BYTES[model.dtype]
            for found, each, name in zip(checkpoints, wanted, names, strict=True)
            for part in name
        }
        self._make_room(sizes)
        offload = max(offload, self._offload_for(sizes))
        pipes = [
            self._read(found, each, name, model, onto_device=not offload or each is not wanted[-1])
            for found, each, name in zip(checkpoints, wanted, names, strict=True)
        ]
        self.loads += 1
        loaded = Loaded(
            kind=kind,
            pipe=pipes[-1],
            prior=pipes[0] if kind.base else None,
            parts=frozenset(sizes),
            text=" ".join(names[-1][part] for part in models.TEXT_PARTS),
            facts=_facts(model, checkpoints, contents),
        )
        self._offload(loaded, offload)
        return loaded

    def _checkpoint(self, wanted: _Wanted, preset: str, tick: Tick) -> Checkpoint:
        """Find a checkpoint, build or download it where it is not here, and make sure it is what the kind needs."""
        found = models.find(wanted.repo, wanted.revision, self._settings)
        if found is None:
            if name := models.tiny_name(wanted.repo):
                tiny.build(name, models.tiny_folder(name, self._settings))
            else:
                download.run(lambda: _download(wanted), wanted.repo, preset, self._settings, tick)
            found = models.find(wanted.repo, wanted.revision, self._settings)
        if found is None:
            raise self._incomplete(wanted.repo)
        found.check(wanted.pipeline, wanted.in_channels)
        return found

    def _load_helper(self, helper: Helper, model: Model, preset: str, tick: Tick) -> LoadedHelper:
        files = self._files(model, preset, tick, lambda found: _check_helper(helper, found))
        class_name = _check_helper(helper, files)
        identity = files.identity(class_name, model.variant)
        name = f"{identity} {model.dtype}"
        self._make_room({name: files.parameters(model.variant) * _BYTES[model.dtype]})
        if name not in self._parts:
            self._parts[name] = loading.helper_model(helper, files, class_name, model, self._device)
            self.loads += 1
        facts = {"repo": model.repo, "revision": files.revision, "dtype": model.dtype}
        facts |= {key: value for key, value in (("variant", model.variant), ("file", model.file)) if value}
        facts["sha256"] = models.fingerprint([{"model": identity}])
        return LoadedHelper(helper=helper, ready=self._parts[name], parts=frozenset({name}), facts=facts)

    def _files(self, model: Model, preset: str, tick: Tick, check: Callable[[HelperFiles], object]) -> HelperFiles:
        """Find the files of a helper model or a LoRA; build or download them where they are not here."""
        found = models.find_helper(model, self._settings)
        if found is None:
            if name := models.tiny_name(model.repo):
                tiny.build(name, models.tiny_folder(name, self._settings))
            else:
                get = partial(download.helper, model, check)
                download.run(get, model.repo, preset, self._settings, tick, file=model.file)
            found = models.find_helper(model, self._settings)
        if found is None:
            raise self._incomplete(model.repo)
        return found

    def _incomplete(self, repo: str) -> SettingsError:
        hint = f"delete its folder below {self._settings.models_path}; it is made or got anew"
        return SettingsError("bad-model", f"model {repo}: files are missing", hint)

    def _make_room(self, sizes: Mapping[str, int]) -> None:
        """Put out models until the new one fits, the longest unused first, but none of the parts it will use."""
        if any(other.offload for other in self.models.values()):
            self.keep_only(None)  # it is alone, and its parts are not where another model would need them
        new = sum(size for part, size in sizes.items() if part not in self._parts)
        while self._budget is not None and self.models and self.used_bytes + new > self._budget:
            del self.models[next(iter(self.models))]
            self._prune(keep=sizes)

    def _offload_for(self, sizes: Mapping[str, int]) -> Offload:
        if self._budget is None or self._device.type != "cuda" or sum(sizes.values()) <= self._budget:
            return Offload.NONE
        return Offload.MODEL if max(sizes.values()) <= self._budget else Offload.SEQUENTIAL

    def _prune(self, keep: Collection[str] = ()) -> None:
        used = {part for loaded in self.models.values() for part in loaded.parts}.union(keep)
        unused = self._parts.keys() - used
        for part in unused:
            del self._parts[part]
        if unused:
            self._free()

    def _read(
        self, found: Checkpoint, wanted: _Wanted, names: Mapping[str, str], model: Model, *, onto_device: bool
    ) -> Any:
        """Read a pipeline, but for the parts that are in memory."""
        shared = {part: self._parts[name] for part, name in names.items() if name in self._parts}
        pipe = loading.pipeline(found, wanted.pipeline, model.dtype, wanted.variant, shared)
        if onto_device:
            pipe.to(self._device)
        self._parts |= {name: getattr(pipe, part) for part, name in names.items()}
        return pipe

    def _free(self) -> None:
        """Give back what nothing refers to any more."""
        import torch

        gc.collect()  # pipelines and their hooks refer to each other
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _wanted(kind: Kind, model: Model, preset: str) -> list[_Wanted]:
    """The checkpoints of a model; the one that paints comes last."""
    own = _Wanted(
        repo=model.repo,
        revision=model.revision,
        variant=model.variant,
        pipeline=kind.pipeline,
        in_channels=kind.in_channels,
    )
    if kind.base is None:
        return [own]
    if model.base is None:
        found = f"preset {preset!r}: model.base is missing: a {kind.pipeline} paints nothing by itself"
        raise SettingsError("bad-preset", found, 'such as base = "black-forest-labs/FLUX.1-dev"')
    base = _Wanted(
        repo=model.base,
        revision=model.base_revision,
        variant=None,
        pipeline=kind.base,
        in_channels=kind.base_in_channels,
    )
    return [own, base]


def _download(wanted: _Wanted) -> None:
    download.pipeline(
        wanted.repo,
        wanted.revision,
        wanted.variant,
        lambda found: found.check(wanted.pipeline, wanted.in_channels),
        has_transformer=wanted.in_channels is not None,
    )


def _check_helper(helper: Helper, files: HelperFiles) -> str:
    """Return the class of a helper model, or "" for one that is one file.

    Raises:
        SettingsError: `wrong-model`, `bad-model`.
    """
    if files.file is None:
        return files.check(helper.models)
    if helper.read_file is None:
        found = f"model {files.repo}: {files.file} is a single file; needed is a {' or a '.join(helper.models)}"
        raise SettingsError("wrong-model", found, "take model.file out of the preset")
    return ""


def _facts(model: Model, checkpoints: list[Checkpoint], contents: list[dict[str, str]]) -> dict[str, str]:
    facts = {"repo": model.repo, "revision": checkpoints[0].revision, "dtype": model.dtype}
    if model.variant:
        facts["variant"] = model.variant
    if model.base:
        facts |= {"base": model.base, "base_revision": checkpoints[-1].revision}
    return {**facts, "sha256": models.fingerprint(contents)}


def _budget(settings: Settings, device: Any) -> float | None:
    """Bytes that the weights may take; None: as many as there are."""
    if settings.worker.vram_gb is not None:
        return settings.worker.vram_gb * _GB
    if device.type != "cuda":
        return None
    import torch

    free, _total = torch.cuda.mem_get_info(device)
    return float(free - _ROOM_GB * _GB)
