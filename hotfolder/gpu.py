"""GpuEngine: makes one picture after the other with diffusers, and asks helper models. One place, for every kind.

A picture goes through load, encode, denoise and decode. `tick` is called between them and after each step; where it
raises, the picture is left at once and nothing of it stays behind. Where memory runs out, the picture is begun again a
rung down: other models out, decoded in tiles, weights in main memory.
"""

import inspect
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import IntEnum
from typing import Any, Final

from PIL import Image

from hotfolder.engine import Answer, BrokenDevice, Made, Question, Request, Tick
from hotfolder.errors import JobError, SettingsError
from hotfolder.helpers import HELPERS
from hotfolder.helpers.helper import Helper
from hotfolder.kinds import KINDS
from hotfolder.kinds.kind import Kind, prepare
from hotfolder.loading import is_broken_device, is_out_of_memory
from hotfolder.pool import Loaded, Offload, Pool
from hotfolder.settings import Settings, prepare_models

#: Prompts whose embeddings are kept; one of FLUX.1 takes 4 MB.
_PROMPTS_KEPT: Final = 16
#: Key of a request -> what diffusers calls it.
_ARGUMENTS: Final = {"guidance": "guidance_scale", "true_cfg": "true_cfg_scale", "strength": "strength"}
#: The longest side of a tile, in pixels.
_TILE: Final = 512
#: Below this no smaller size is recommended.
_SMALLEST_SIDE: Final = 256


class Rung(IntEnum):
    """What is given up for want of memory; each includes those before it."""

    NOTHING = 0
    #: Other models are put out.
    ALONE = 1
    #: The VAE works in tiles: a little slower, and seams are possible.
    TILED = 2
    #: The weights wait in main memory, and a whole part is fetched when it is its turn.
    OFFLOADED = 3
    #: A layer at a time is fetched: slow.
    SEQUENTIAL = 4


_OFFLOADS: Final = {Rung.OFFLOADED: Offload.MODEL, Rung.SEQUENTIAL: Offload.SEQUENTIAL}
_NOTICES: Final = {
    Rung.ALONE: "memory ran out: begun again with all other models put out",
    Rung.TILED: "memory ran out: decoded in tiles",
    Rung.OFFLOADED: "memory ran out: the model's parts wait in main memory",
    Rung.SEQUENTIAL: "memory ran out: the model's layers wait in main memory, which is slow",
}


class GpuEngine:
    """The Engine that paints with diffusers. Nothing heavy is loaded before the first picture."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: frozenset[str] = frozenset()
        self._started: Pool | None = None
        self._device: Any = None
        #: (text encoders, prompt, max_sequence_length) -> embeddings per token, pooled embedding.
        self._prompts: OrderedDict[tuple[str, str, int], tuple[Any, Any]] = OrderedDict()

    @property
    def loaded(self) -> frozenset[str]:
        """Keys of the models that are in memory; may be read from any thread."""
        return self._loaded

    @property
    def pool(self) -> Pool:
        """The models in memory; the first use imports torch and finds the device."""
        if self._started is None:
            self._device = _start(self._settings)
            self._started = Pool(self._settings, self._device)
        return self._started

    def make(self, request: Request, tick: Tick) -> Made:
        """Make one picture, as `Engine.make` says.

        Raises:
            BrokenDevice: nothing works on the device any more; the process must be started again.
        """
        kind = KINDS[request.kind]
        _check_pictures(kind, request)
        request, notices = prepare(kind, request)
        rung = Rung.NOTHING
        while True:
            try:
                return self._attempt(kind, request, tick, rung, notices)
            except (RuntimeError, MemoryError) as error:
                self._expect_out_of_memory(error)
                if rung is self._last_rung():
                    raise _too_large(request, transient=self._on_gpu) from error
            finally:
                self._loaded = frozenset(self._started.models if self._started else ())
            # Only here, the exception being gone, can the memory of the failed attempt be had again.
            rung = Rung(rung + 1)
            notices.append(_NOTICES[rung])

    def ask(self, question: Question, tick: Tick) -> Answer:
        """Ask a helper model, as `Engine.ask` says.

        Raises:
            BrokenDevice: as `make`.
        """
        helper = HELPERS[question.kind]
        alone = False
        while True:
            try:
                return self._answer(helper, question, tick, alone=alone)
            except (RuntimeError, MemoryError) as error:
                self._expect_out_of_memory(error)
                if alone:
                    raise _too_large_to_ask(question, transient=self._on_gpu) from error
            finally:
                self._loaded = frozenset(self._started.models if self._started else ())
            alone = True

    def close(self) -> None:
        """Give back all memory."""
        self._prompts.clear()
        if self._started is not None:
            self._started.keep_only(None)
        self._loaded = frozenset()

    def _attempt(self, kind: Kind, request: Request, tick: Tick, rung: Rung, notices: list[str]) -> Made:
        import torch

        notices = list(notices)
        phases = _Phases(tick, ("load", "encode", "denoise", "decode"))
        phases.enter("load")
        if rung >= Rung.ALONE:
            self._prompts.clear()
            self.pool.keep_only(request.model.key)
        loaded = self.pool.get(kind, request.model, request.preset, _OFFLOADS.get(rung, Offload.NONE), tick)
        if loaded.offload and rung < Rung.OFFLOADED:
            notices.append("the model does not fit on the device as a whole: its weights wait in main memory")
        pixels = request.width * request.height
        if rung >= Rung.TILED:
            loaded.tiles_from = min(pixels, loaded.tiles_from or pixels)
        tiled = loaded.tiles_from is not None and pixels >= loaded.tiles_from
        if tiled and rung < Rung.TILED:
            notices.append("decoded in tiles: without them memory ran out before")
        step = 2 * loaded.pipe.vae_scale_factor
        if request.width % step or request.height % step:
            found = f"{request.width}x{request.height}: {request.model.repo} makes sides that are multiples of {step}"
            raise JobError("bad-value", found, "set width and height, or resize the picture before this stage")
        if request.sizes and (made := f"{request.width}x{request.height}") not in request.sizes:
            notices.append(f"made at {made}: the preset was taught {' and '.join(request.sizes)} only")
        self.pool.switch_loras(loaded, request.loras, request.preset, tick)
        pipe = loaded.pipe_for(kind.runs(request))
        if request.guidance and not pipe.transformer.config.guidance_embeds:
            notices.append("guidance does nothing: this model was trained without")
        try:
            with torch.no_grad(), _tiles(pipe.vae, request, on=tiled):
                phases.enter("encode")
                arguments = self._arguments(kind, request, loaded, pipe, notices)
                image = _paint(pipe, arguments, phases)
        finally:
            loaded.reset()
        facts = {
            **loaded.facts,
            **self._device_facts(),
            "attention": "native",
            "speed": "exact",
            "offload": loaded.offload.name.lower(),
            "vae": "tiled" if tiled else "whole",
        }
        if loaded.loras:
            facts["loras"] = loaded.loras
        return Made(image=kind.finish(request, image), model=facts, timings=phases.seconds, notices=tuple(notices))

    def _answer(self, helper: Helper, question: Question, tick: Tick, *, alone: bool) -> Answer:
        import torch

        phases = _Phases(tick, ("load", "infer"))
        phases.enter("load")
        if alone:
            self._prompts.clear()
            self.pool.keep_only(question.model.key)
        loaded = self.pool.get_helper(helper, question.model, question.preset, tick)
        phases.enter("infer")
        with torch.no_grad():
            answer = helper.run(loaded.ready, question, lambda step, steps: tick("infer", step, steps))
        phases.enter("")
        return replace(
            answer,
            model={**loaded.facts, **self._device_facts()},
            timings=phases.seconds,
            notices=((_NOTICES[Rung.ALONE],) if alone else ()) + answer.notices,
        )

    def _arguments(self, kind: Kind, request: Request, loaded: Loaded, pipe: Any, notices: list[str]) -> dict[str, Any]:
        """What the pipeline is called with. Nothing of the request is left out silently."""
        import torch

        taken = inspect.signature(type(pipe).__call__).parameters
        arguments = kind.arguments(request)
        for key, name in _ARGUMENTS.items():
            value = getattr(request, key)
            if value is None:
                continue
            if name not in taken or key in kind.refuses:
                found = f"preset {request.preset!r}: {key} = {value} means nothing to {request.kind}"
                raise SettingsError("bad-preset", found, f"take {key} out of the preset")
            arguments[name] = value
        length = request.max_sequence_length
        notices += _cut(loaded, "prompt", request.prompt, length)
        tokens, pooled = self._embed(loaded, request.prompt, length)
        if kind.condition is not None:
            tokens, pooled = kind.condition(loaded.prior, request, tokens, pooled)
        arguments |= {"prompt_embeds": tokens, "pooled_prompt_embeds": pooled}
        if request.true_cfg is not None and request.true_cfg > 1:
            # diffusers makes the second pass only if there is something to steer away from, be it the empty prompt.
            negative = self._embed(loaded, request.negative_prompt or "", length)
            notices += _cut(loaded, "negative prompt", request.negative_prompt or "", length)
            arguments |= dict(zip(("negative_prompt_embeds", "negative_pooled_prompt_embeds"), negative, strict=True))
        return {
            **arguments,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.steps,
            "max_sequence_length": request.max_sequence_length,
            # On the CPU, one a picture: the same noise on any device, whatever was made before.
            "generator": torch.Generator("cpu").manual_seed(request.seed),
        }

    def _embed(self, loaded: Loaded, prompt: str, length: int) -> tuple[Any, Any]:
        """Encode a prompt, or remember how it was encoded. Some LoRAs change a text encoder.

        Returns: (1, length, d) from T5 and (1, p) from CLIP.
        """
        key = (f"{loaded.text} {loaded.loras}", prompt, length)
        if key not in self._prompts:
            embeds, pooled, _ids = loaded.pipe.encode_prompt(prompt, None, self._device, max_sequence_length=length)
            self._prompts[key] = embeds, pooled
            while len(self._prompts) > _PROMPTS_KEPT:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]

    def _expect_out_of_memory(self, error: Exception) -> None:
        """Raise what it is, where it is anything else."""
        if is_broken_device(error):
            raise BrokenDevice(f"the device {self._device} is broken: {error}") from error
        if not is_out_of_memory(error):
            raise error

    @property
    def _on_gpu(self) -> bool:
        return bool(self._device.type == "cuda")

    def _last_rung(self) -> Rung:
        return Rung.SEQUENTIAL if self._on_gpu else Rung.TILED

    def _device_facts(self) -> dict[str, str]:
        import torch

        facts = {"device": str(self._device), "threads": str(torch.get_num_threads())}
        if self._on_gpu:
            facts["gpu"] = torch.cuda.get_device_name(self._device)
        return facts


def _cut(loaded: Loaded, what: str, prompt: str, length: int) -> list[str]:
    """The notice for a prompt longer than what the text encoder is given; diffusers only writes a line to its log."""
    tokens = len(loaded.pipe.tokenizer_2(prompt).input_ids)
    return [f"the last {tokens - length} of {tokens} tokens of the {what} were cut off"] if tokens > length else []


class _Phases:
    """Where a picture is, how long each phase took, and the cell's chance to be stopped in between."""

    def __init__(self, tick: Tick, names: Iterable[str]) -> None:
        self._tick = tick
        self._now = ""
        self._since = 0.0
        self.seconds = dict.fromkeys(names, 0.0)

    def enter(self, phase: str) -> None:
        """Leave the phase before and enter this one. An empty one ends it all."""
        if self._now:
            self.seconds[self._now] += time.perf_counter() - self._since
            if self._now != "denoise":
                self._tick(self._now, 0, 0)
        self._now, self._since = phase, time.perf_counter()
        if phase and phase != "denoise":
            self._tick(phase, 0, 0)

    def before_pass(self, _module: Any, _arguments: Any) -> None:
        """Before each pass of the transformer: at the first one, encoding the pictures is over."""
        if self._now == "encode":
            self.enter("denoise")

    def after_step(self, pipe: Any, index: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """As `callback_on_step_end`; the pipeline fails if the values are not given back."""
        _wait(pipe)
        self._tick("denoise", index + 1, pipe.num_timesteps)
        if index + 1 == pipe.num_timesteps:
            self.enter("decode")
        return values


def _paint(pipe: Any, arguments: dict[str, Any], phases: _Phases) -> Image.Image:
    hook = pipe.transformer.register_forward_pre_hook(phases.before_pass)
    try:
        picture: Image.Image = pipe(**arguments, callback_on_step_end=phases.after_step).images[0]
    finally:
        hook.remove()
    phases.enter("")
    return picture


def _wait(pipe: Any) -> None:
    """Wait until the GPU has done the step: Python is far ahead of it, and progress would be a lie."""
    import torch

    if pipe._execution_device.type == "cuda":  # noqa: SLF001 - where it really runs, also with offload
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # torch has no types for it
        done.record()
        done.synchronize()


@contextmanager
def _tiles(vae: Any, request: Request, *, on: bool) -> Iterator[None]:
    """Let the VAE work in tiles for this picture; it is shared with other models."""
    if not on:
        yield
        return
    before = vae.tile_sample_min_size, vae.tile_latent_min_size
    factor = before[0] // before[1]
    # By default a tile is as large as the pictures the VAE was trained on (1024), and nothing would be gained.
    tile = min(_TILE, max(64, max(request.width, request.height) // 2 // 64 * 64))
    vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // factor
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.disable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = before


def _check_pictures(kind: Kind, request: Request) -> None:
    for role in sorted(kind.needs - request.pictures.keys()):
        raise JobError(
            "missing-key", f"{role} is missing: {request.kind} cannot do without", f'add a line {role} = "..."'
        )
    for role in sorted(request.pictures.keys() - kind.needs - kind.takes):
        raise JobError("wrong-kind", f"{request.kind} has no use for {role}", "leave it out, or choose another preset")
    if request.image_strength is not None and kind.condition is None:
        raise JobError("wrong-kind", f"{request.kind} has no use for image_strength", "only redux takes it")
    if request.negative_prompt and not (request.true_cfg or 0) > 1:
        raise JobError("bad-value", "negative_prompt does nothing without true_cfg above 1", "add true_cfg = 4")


def _too_large(request: Request, *, transient: bool) -> JobError:
    """The error for a picture that fits in no way; on a GPU others may use the memory for the moment."""
    smaller = [int(side * 0.5**0.5) // 16 * 16 for side in (request.width, request.height)]
    hint = "a smaller model or more memory is needed"
    if min(smaller) >= _SMALLEST_SIDE:
        hint = f"half as many pixels would likely fit: width = {smaller[0]}, height = {smaller[1]}"
    found = f"{request.width}x{request.height} does not fit in memory with {request.model.repo}"
    return JobError("out-of-memory", found, hint, transient=transient)


def _too_large_to_ask(question: Question, *, transient: bool) -> JobError:
    sizes = ", ".join(sorted({f"{picture.width}x{picture.height}" for picture in question.pictures}))
    found = f"{question.kind} of {sizes} does not fit in memory with {question.model.repo}"
    return JobError("out-of-memory", found, "a smaller picture, a smaller model or more memory", transient=transient)


def _start(settings: Settings) -> Any:
    """Import torch and its friends, set them up for repeatable pixels, and return the torch.device."""
    # Hugging Face decides at import where models are kept.
    prepare_models(settings)
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    # Sums depend on how many threads they are split among: part of what makes pixels repeatable.
    torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if settings.device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(settings.device)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SettingsError(
            "bad-settings",
            f"device = {settings.device!r}: this machine has {count} CUDA devices",
            'device = "auto" takes what there is',
        )
    return device
