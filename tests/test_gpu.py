"""The engine: models loaded once, shared and put out; cancelling; what is done when memory runs out."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hub
import pytest
from tiny_jobs import REQUESTS, THREADS, engine_in, hash_of, ignore, model_of, settings_of, stop_at

from hotfolder import models, tiny
from hotfolder.engine import BrokenDevice, JobStopped, Made, Request, StopReason
from hotfolder.errors import JobError, SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.pool import Loaded, Offload
from hotfolder.settings import WorkerSettings

TEXT2IMG = REQUESTS["text2img"]
SORTS = pytest.mark.parametrize("name", REQUESTS)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture
def engine(workspace: Path) -> Iterator[GpuEngine]:
    """An engine that has loaded nothing; the models are built already from the second test on."""
    engine = engine_in(workspace)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def fresh(workspace: Path) -> dict[str, str]:
    """The hash of each sort of picture, each made by an engine that had made nothing before."""
    hashes = {}
    for name, request in REQUESTS.items():
        engine = engine_in(workspace)
        hashes[name] = hash_of(engine.make(request, ignore))
        engine.close()
    return hashes


def make(engine: GpuEngine, request: Request = TEXT2IMG, **changes: Any) -> Made:
    return engine.make(replace(request, **changes), ignore)


def loaded(engine: GpuEngine, name: str = "text2img") -> Loaded:
    found = engine.pool.models[REQUESTS[name].model.key]
    assert isinstance(found, Loaded)
    return found


def failing(times: int, error: Exception, when: Callable[[Any], bool] = lambda _: True) -> Callable[..., None]:
    """A forward pre-hook that raises the first `times` times that its input is such."""
    left = [times]

    def hook(_module: Any, arguments: Any) -> None:
        if left[0] and when(arguments):
            left[0] -= 1
            raise error

    return hook


# What a caller sees


def test_nothing_is_loaded_before_the_first_picture_and_after_close(engine: GpuEngine) -> None:
    assert engine.loaded == frozenset()
    make(engine)
    assert engine.loaded == {TEXT2IMG.model.key}
    engine.close()
    assert engine.loaded == frozenset()
    assert engine.pool.used_bytes == 0
    assert make(engine).image.size == (128, 128)


def test_the_tick_is_called_around_each_part_and_after_each_step(engine: GpuEngine) -> None:
    seen: list[tuple[str, int, int]] = []
    engine.make(TEXT2IMG, lambda *now: seen.append(now))
    around = {phase: [(phase, 0, 0)] * 2 for phase in ("load", "encode", "decode")}
    steps = [("denoise", step, 4) for step in (1, 2, 3, 4)]
    assert seen == [*around["load"], *around["encode"], *steps, *around["decode"]]


def test_what_is_known_of_the_model_is_told(engine: GpuEngine, tmp_path: Path) -> None:
    made = make(engine)
    assert dict(made.model) | {"sha256": ""} == {
        "repo": "hotfolder/noise",
        "revision": models.TINY_VERSION,
        "sha256": "",
        "dtype": "float32",
        "device": "cpu",
        "attention": "native",
        "offload": "none",
        "vae": "whole",
        "speed": "exact",
        "threads": str(THREADS),
    }
    assert made.notices == ()
    assert made.model["sha256"] == make(engine_in(tmp_path)).model["sha256"]
    assert made.timings.keys() == {"load", "encode", "denoise", "decode"}
    assert all(seconds > 0 for seconds in made.timings.values())


def test_a_prompt_that_is_too_long_is_cut_with_a_notice(engine: GpuEngine) -> None:
    words = "a red mug on a table " * 16
    made = make(engine, prompt=words)
    assert made.notices == ("the last 33 of 97 tokens of the prompt were cut off",)
    assert hash_of(make(engine, prompt=words + "and a cat")) == hash_of(made)
    negative = make(engine, true_cfg=2.0, negative_prompt=words)
    assert negative.notices == ("the last 33 of 97 tokens of the negative prompt were cut off",)


def test_guidance_for_a_model_without_any_is_said_to_do_nothing(engine: GpuEngine, workspace: Path) -> None:
    make(engine)
    folder = Path(shutil.copytree(models.tiny_folder("noise", engine_settings(workspace)), workspace / "schnell"))
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"guidance_embeds": False}))
    request = replace(TEXT2IMG, model=model_of("./schnell"))
    assert make(engine, request).notices == ("guidance does nothing: this model was trained without",)
    assert make(engine, request, guidance=None).notices == ()


def engine_settings(workspace: Path) -> Any:
    return settings_of(workspace)


# Cancelling


@SORTS
def test_a_cancel_stops_at_the_step_and_the_next_picture_is_as_from_a_fresh_start(
    engine: GpuEngine, fresh: dict[str, str], name: str
) -> None:
    seen: list[tuple[str, int, int]] = []

    def tick(phase: str, step: int, steps: int) -> None:
        seen.append((phase, step, steps))
        stop_at("denoise", 2)(phase, step, steps)

    with pytest.raises(JobStopped) as stopped:
        engine.make(REQUESTS[name], tick)
    assert stopped.value.reason is StopReason.CANCEL
    assert seen[-1][:2] == ("denoise", 2)
    assert not loaded(engine, name).pipe.transformer._forward_pre_hooks  # noqa: SLF001 - torch has no other way to ask
    assert hash_of(make(engine, REQUESTS[name])) == fresh[name]


@pytest.mark.parametrize("phase", ["load", "encode", "decode"])
@pytest.mark.parametrize("time", [1, 2])
def test_a_cancel_before_or_after_a_part_that_cannot_be_interrupted(
    engine: GpuEngine, fresh: dict[str, str], phase: str, time: int
) -> None:
    left = [time]

    def tick(now: str, _step: int, _steps: int) -> None:
        left[0] -= now == phase
        if not left[0]:
            raise JobStopped(StopReason.SHUTDOWN)

    for name in ("fill", "img2img"):
        left[0] = time
        with pytest.raises(JobStopped):
            engine.make(REQUESTS[name], tick)
        assert hash_of(make(engine, REQUESTS[name])) == fresh[name]


def test_a_cache_of_steps_does_not_outlive_a_cancel(engine: GpuEngine) -> None:
    from diffusers import TaylorSeerCacheConfig

    request = replace(TEXT2IMG, steps=12)
    make(engine)
    loaded(engine).pipe.transformer.enable_cache(TaylorSeerCacheConfig(cache_interval=4, disable_cache_before_step=2))
    undisturbed = hash_of(make(engine, request))
    with pytest.raises(JobStopped):
        engine.make(request, stop_at("denoise", 6))
    assert hash_of(make(engine, request)) == undisturbed


def test_an_error_of_ours_is_not_swallowed_and_spoils_nothing(engine: GpuEngine, fresh: dict[str, str]) -> None:
    make(engine)
    hook = loaded(engine).pipe.transformer.register_forward_pre_hook(failing(1, ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        make(engine)
    hook.remove()
    assert hash_of(make(engine)) == fresh["text2img"]


# Models in memory


def test_a_model_is_loaded_once(engine: GpuEngine) -> None:
    for request in (TEXT2IMG, REQUESTS["img2img"], TEXT2IMG):
        make(engine, request)
    assert engine.pool.loads == 1


def test_parts_of_the_same_content_are_in_memory_once_and_schedulers_are_not_shared(engine: GpuEngine) -> None:
    for name in ("text2img", "kontext", "fill", "control"):
        make(engine, REQUESTS[name])
    make(engine, REQUESTS["img2img"])
    pipes = [loaded(engine, name).pipe for name in ("text2img", "kontext", "fill", "control")]
    pipes += loaded(engine).others.values()
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"):
        assert len({id(getattr(pipe, part)) for pipe in pipes}) == 1, part
    assert len({id(pipe.transformer) for pipe in pipes}) == 4
    assert len({id(pipe.scheduler) for pipe in pipes}) == len(pipes) == 5


def test_redux_paints_with_the_text2img_model_that_is_in_memory(engine: GpuEngine) -> None:
    make(engine)
    before = engine.pool.used_bytes
    make(engine, REQUESTS["redux"])
    assert loaded(engine, "redux").pipe.transformer is loaded(engine).pipe.transformer
    assert engine.pool.used_bytes - before < 300_000  # the prior alone


def test_the_longest_unused_model_is_put_out_and_what_others_use_stays(workspace: Path, fresh: dict[str, str]) -> None:
    # Room for what is shared and two transformers.
    engine = engine_in(workspace, worker=WorkerSettings(vram_gb=0.0013))
    for name in ("text2img", "kontext"):
        make(engine, REQUESTS[name])
    encoder = loaded(engine).pipe.text_encoder_2
    make(engine)  # so that kontext is the longest unused
    make(engine, REQUESTS["fill"])
    assert engine.loaded == {TEXT2IMG.model.key, REQUESTS["fill"].model.key}
    assert loaded(engine, "fill").pipe.text_encoder_2 is encoder
    assert engine.pool.used_bytes < 1_300_000
    assert hash_of(make(engine, REQUESTS["kontext"])) == fresh["kontext"]
    assert engine.pool.loads == 4
    assert loaded(engine, "kontext").pipe.text_encoder_2 is encoder


def test_a_model_larger_than_the_limit_is_alone_in_memory(workspace: Path, fresh: dict[str, str]) -> None:
    engine = engine_in(workspace, worker=WorkerSettings(vram_gb=0.0001))
    encoders = []
    for name in ("kontext", "text2img", "redux"):
        assert hash_of(make(engine, REQUESTS[name])) == fresh[name]
        assert engine.loaded == {REQUESTS[name].model.key}
        encoders.append(loaded(engine, name).pipe.text_encoder_2)
    assert all(encoder is encoders[0] for encoder in encoders)  # what the next one uses is not put out


def test_parts_that_wait_in_main_memory_are_not_shared(engine: GpuEngine) -> None:
    make(engine)
    vae = loaded(engine).pipe.vae
    loaded(engine).offload = Offload.MODEL  # as on a GPU that is too small for it
    make(engine, REQUESTS["kontext"])
    assert engine.loaded == {REQUESTS["kontext"].model.key}
    assert loaded(engine, "kontext").pipe.vae is not vae


# Models that are not what they should be


def test_a_checkpoint_of_another_kind_is_refused_before_its_weights_are_read(engine: GpuEngine) -> None:
    for name, found in (
        ("fill", "hotfolder/noise"),
        ("text2img", "hotfolder/noise-control"),
        ("kontext", "hotfolder/noise"),
    ):
        with pytest.raises(SettingsError, match=f"model {found} is a Flux.* needed is a Flux") as caught:
            make(engine, REQUESTS[name], model=model_of(found))
        assert caught.value.code == "wrong-model"
    assert engine.pool.loads == 0


def test_a_loaded_model_is_refused_for_another_kind_and_stays_loaded(engine: GpuEngine) -> None:
    make(engine)
    with pytest.raises(SettingsError, match="is a FluxPipeline; needed is a FluxKontextPipeline"):
        make(engine, REQUESTS["kontext"], model=TEXT2IMG.model)
    make(engine)
    assert engine.pool.loads == 1


def test_a_redux_model_without_a_base_is_refused(engine: GpuEngine) -> None:
    with pytest.raises(SettingsError, match=r"preset 'noise-redux': model\.base is missing") as caught:
        make(engine, REQUESTS["redux"], model=model_of("hotfolder/noise-redux"))
    assert caught.value.code == "bad-preset"


def test_a_model_that_is_not_here_says_how_to_get_it(engine: GpuEngine) -> None:
    with pytest.raises(SettingsError, match=r"model black-forest-labs/FLUX\.1-dev is not on this machine") as caught:
        make(engine, preset="flux-dev", model=model_of("black-forest-labs/FLUX.1-dev"))
    assert caught.value.code == "model-missing"
    assert "hf download black-forest-labs/FLUX.1-dev" in caught.value.hint
    assert "33.7 GB" in caught.value.hint


def test_a_folder_that_is_not_there_is_named(engine: GpuEngine, workspace: Path) -> None:
    with pytest.raises(SettingsError, match=str(workspace / "nowhere")) as caught:
        make(engine, model=model_of("./nowhere"))
    assert caught.value.code == "model-missing"


@pytest.mark.parametrize("part", ["transformer/diffusion_pytorch_model", "text_encoder/model"])
def test_damaged_weights_are_named_and_the_next_picture_is_made(engine: GpuEngine, workspace: Path, part: str) -> None:
    make(engine)
    folder = workspace / f"damaged-{part.partition('/')[0]}"
    shutil.copytree(models.tiny_folder("noise", settings_of(workspace)), folder)
    weights = folder / f"{part}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(SettingsError, match="cannot be loaded from") as caught:
        make(engine, model=model_of(str(folder)))
    assert caught.value.code == "bad-model"
    assert str(folder) in caught.value.hint
    make(engine)


def test_pickled_weights_are_never_opened(engine: GpuEngine, workspace: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    make(engine)
    folder = Path(shutil.copytree(models.tiny_folder("noise", settings_of(workspace)), tmp_path / "pickled"))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    (folder / "vae" / "another.safetensors").touch()
    with pytest.raises(SettingsError, match="cannot be loaded"):
        make(engine, model=model_of(str(folder)))
    assert not (tmp_path / "opened").exists()


def test_a_device_that_is_not_there_is_named(workspace: Path) -> None:
    engine = GpuEngine(settings_of(workspace).model_copy(update={"device": "cuda:63"}))
    with pytest.raises(SettingsError, match="device = 'cuda:63'") as caught:
        make(engine)
    assert caught.value.code == "bad-settings"


def test_a_model_is_downloaded_once_and_shares_what_is_in_memory(workspace: Path, tmp_path: Path) -> None:
    tiny.build("noise", folder := models.tiny_folder("noise", settings_of(workspace)))
    asked: list[str] = []
    with hub.serving({"acme/mini": folder}, asked) as address:
        environment = {name: value for name, value in os.environ.items() if name != "HF_HOME"}
        run = subprocess.run(
            [sys.executable, "-c", _DOWNLOADING, str(tmp_path)],
            env=environment | {"HF_ENDPOINT": address, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
    answer = json.loads(run.stdout)
    assert answer["refused"] == "model acme/mini is a FluxPipeline; needed is a FluxKontextPipeline"
    assert answer["after refusal"] == ["model_index.json", "transformer/config.json", "vae/config.json"]
    assert answer["states"] == ["missing", "ready"]
    assert answer["revision"] == hub.COMMIT
    assert answer["shared"]
    assert answer["missing"].startswith("model acme/none is not on this machine: 404")
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert sorted(asked) == files  # each once


_DOWNLOADING = """
import json, sys
from dataclasses import replace
from pathlib import Path
from tiny_jobs import REQUESTS, THREADS, hash_of, ignore, model_of
from hotfolder import models
from hotfolder.errors import SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.engine import StopReason
from hotfolder.settings import Settings

def refusal(name, repo):
    try:
        engine.make(replace(REQUESTS[name], model=model_of(repo)), ignore)
    except SettingsError as error:
        return error.message

workspace = Path(sys.argv[1])
settings = Settings(workspace=workspace, device="cpu", threads=THREADS)
engine = GpuEngine(settings)
request = replace(REQUESTS["text2img"], model=model_of("acme/mini"))
answer = {"states": [models.state(request.model, settings)], "refused": refusal("kontext", "acme/mini")}
here = workspace / "models/hub/models--acme--mini/snapshots"
answer["after refusal"] = sorted(str(file.relative_to(here)).partition("/")[2] for file in here.rglob("*.json"))
answer["revision"] = engine.make(request, ignore).model["revision"]
answer["states"].append(models.state(request.model, settings))
engine.make(request, ignore)
engine.make(REQUESTS["text2img"], ignore)
downloaded, built = (engine.pool.models[key].pipe for key in (request.model.key, REQUESTS["text2img"].model.key))
answer["shared"] = downloaded.transformer is built.transformer
answer["missing"] = refusal("text2img", "acme/none")
print(json.dumps(answer))
"""


# Memory


def out_of_memory() -> Exception:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def test_when_memory_runs_out_other_models_are_put_out_first(engine: GpuEngine, fresh: dict[str, str]) -> None:
    make(engine, REQUESTS["kontext"])
    make(engine)
    hook = loaded(engine).pipe.transformer.register_forward_pre_hook(failing(1, out_of_memory()))
    made = make(engine)
    hook.remove()
    assert made.notices == ("memory ran out: begun again with all other models put out",)
    assert hash_of(made) == fresh["text2img"]
    assert engine.loaded == {TEXT2IMG.model.key}
    assert make(engine).notices == ()


def test_a_picture_too_large_for_the_vae_is_decoded_in_tiles_and_so_is_the_next(engine: GpuEngine) -> None:
    make(engine)
    whole = make(engine, width=256, height=192)
    neighbour = make(engine, REQUESTS["control"], width=320, height=320)

    def large(arguments: Any) -> bool:
        return bool(arguments[0].shape[-1] > 20)  # latents, an eighth of the pixels

    hook = loaded(engine).pipe.vae.decoder.register_forward_pre_hook(failing(1000, out_of_memory(), large))
    tiled = make(engine, width=256, height=192)
    assert tiled.notices[-1] == "memory ran out: decoded in tiles"
    assert (tiled.model["vae"], tiled.image.size) == ("tiled", (256, 192))
    assert hash_of(tiled) != hash_of(whole)
    again = make(engine, width=256, height=192)
    assert again.notices == ("decoded in tiles: without them memory ran out before",)
    assert hash_of(again) == hash_of(tiled)
    small = make(engine)
    assert (small.model["vae"], small.notices) == ("whole", ())
    hook.remove()
    # The VAE is shared, the tiles are not.
    assert hash_of(make(engine, REQUESTS["control"], width=320, height=320)) == hash_of(neighbour)


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        ((512, 768), "half as many pixels would likely fit: width = 352, height = 528"),
        ((128, 128), "a smaller model or more memory is needed"),
    ],
)
def test_a_picture_that_fits_in_no_way_fails_with_a_size_that_would(
    engine: GpuEngine, fresh: dict[str, str], size: tuple[int, int], hint: str
) -> None:
    make(engine)
    hook = loaded(engine).pipe.transformer.register_forward_pre_hook(failing(1000, out_of_memory()))
    with pytest.raises(JobError, match=f"{size[0]}x{size[1]} does not fit in memory with hotfolder/noise") as caught:
        make(engine, width=size[0], height=size[1])
    assert (caught.value.code, caught.value.hint) == ("out-of-memory", hint)
    hook.remove()
    engine.close()
    assert hash_of(make(engine)) == fresh["text2img"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")])
def test_main_memory_that_runs_out_is_taken_the_same(engine: GpuEngine, error: Exception) -> None:
    make(engine)
    hook = loaded(engine).pipe.text_encoder_2.register_forward_pre_hook(failing(1, error))
    assert make(engine, prompt="one not seen before").notices[0].startswith("memory ran out")
    hook.remove()


def test_a_broken_device_is_told_apart(engine: GpuEngine) -> None:
    import torch

    make(engine)
    for error in (
        torch.AcceleratorError("CUDA error: an illegal memory access"),
        RuntimeError("CUDA error: misaligned"),
    ):
        hook = loaded(engine).pipe.transformer.register_forward_pre_hook(failing(1, error))
        with pytest.raises(BrokenDevice, match="CUDA error"):
            make(engine)
        hook.remove()
