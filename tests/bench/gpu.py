"""Pictures a second on a real GPU: FLUX.1 in its full size, with random weights, through the daemon and bare.

Weights that were never trained take as long as others, and nothing has to be downloaded. It needs a CUDA device with
room for 34 GB, and as much on the disk; elsewhere it says so and is skipped.
"""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

from conftest import Workspace

from bench.daemons import drain, queue_all
from bench.harness import Bench, Finding, Pairs, Skipped, at_least, in_turns
from hotfolder import durable

_SIDE: Final = 1024
_STEPS: Final = 4
_GB: Final = 34
_PNG: Final = {"compress_level": 1, "compress_type": 3}
_PRESET: Final = 'kind = "text2img"\n[model]\nrepo = "{folder}"\ndtype = "bfloat16"\n'


def metric(bench: Bench) -> Iterator[Finding]:
    """As `pictures`, but nothing of it is played."""
    import torch

    if not torch.cuda.is_available():
        raise Skipped("there is no CUDA device: this metric can only be measured on a real GPU")
    if torch.cuda.mem_get_info()[0] < _GB * 1e9:
        raise Skipped(f"the CUDA device has less than {_GB} GB free")
    pictures = bench.size(30, 5)
    with bench.folder() as folder:
        models = folder / "flux"
        _save_random_flux(models)

        def ours() -> tuple[float, float]:
            with bench.folder() as own:
                return _served(own, models, pictures), 0.0

        def theirs() -> tuple[float, float]:
            with bench.folder() as own:
                return _bare(own, models, pictures)

        pairs = in_turns(ours, theirs, bench.size(3, 1))
    limits = [all_s / make_s for _, (all_s, make_s) in pairs]
    speeds = [(1 / our_s, limit / all_s) for ((our_s, _), (all_s, _)), limit in zip(pairs, limits, strict=True)]
    yield Finding(
        metric="pictures a second on a GPU, of the overlap limit",
        against="a loop of pipe(...) and save(), times (make + host) / make",
        unit="pictures/s",
        target=at_least(0.98),
        disk=bench.disk,
        size=pictures,
        note=f"{torch.cuda.get_device_name()}, FLUX.1 shapes, random weights, {_SIDE}x{_SIDE}, {_STEPS} steps",
        pairs=Pairs(
            ours=[mine for mine, _ in speeds],
            theirs=[limit for _, limit in speeds],
            values=[mine / limit for mine, limit in speeds],
        ),
        counts={"limit": round(median(limits), 4)},
    )


def _save_random_flux(folder: Path) -> None:
    """Write a pipeline whose parts have the shapes of FLUX.1-schnell, as a model's folder is laid out."""
    import torch
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    from hotfolder import tiny

    tiny.build("noise", folder.parent / "tokenizers")
    small = FluxPipeline.from_pretrained(folder.parent / "tokenizers")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        # https://huggingface.co/black-forest-labs/FLUX.1-schnell: transformer/, vae/, text_encoder/, text_encoder_2/.
        parts: dict[str, Any] = {
            "transformer": FluxTransformer2DModel(guidance_embeds=False),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=16,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=768,
                    num_attention_heads=12,
                    intermediate_size=3072,
                    # The pooled embedding is taken where the tokenizer, which is a tiny one, ends a prompt.
                    eos_token_id=small.tokenizer.eos_token_id,
                )
            ),
            "text_encoder_2": T5EncoderModel(
                T5Config(d_model=4096, d_ff=10240, num_heads=64, num_layers=24, feed_forward_proj="gated-gelu")
            ),
        }
    torch.set_default_dtype(torch.float32)
    FluxPipeline(
        **parts, scheduler=small.scheduler, tokenizer=small.tokenizer, tokenizer_2=small.tokenizer_2
    ).save_pretrained(folder)


def _served(folder: Path, models: Path, pictures: int) -> float:
    """Seconds a picture, from the first cell to the end of the last job, the model being loaded."""
    from hotfolder.gpu import GpuEngine

    workspace = Workspace(folder / "work")
    (workspace.root / "presets").mkdir()
    (workspace.root / "presets" / "flux.toml").write_text(_PRESET.format(folder=models), encoding="utf-8")
    text = f'preset = "flux"\nprompt = "a mug"\nsteps = {_STEPS}\nwidth = {_SIDE}\nheight = {_SIDE}\n'
    for number in range(pictures + 1):
        workspace.drop(f"mug-{number:04d}.toml", text + f"seed = {number}\n")
    queue_all(workspace, pictures + 1)
    drain(workspace, GpuEngine(workspace.settings(DEVICE="cuda")))
    ends = sorted(workspace.status(job)["finished_at"].timestamp() for job in workspace.jobs())
    # The first picture loads the model.
    return float(ends[-1] - ends[0]) / pictures


def _bare(folder: Path, models: Path, pictures: int) -> tuple[float, float]:
    """Seconds a picture, all in all and to make it."""
    import torch
    from diffusers import FluxPipeline

    pipe = FluxPipeline.from_pretrained(models, dtype=torch.bfloat16).to("cuda")
    make_s, started = 0.0, 0.0
    for number in range(pictures + 1):
        began = time.perf_counter()
        generator = torch.Generator("cpu").manual_seed(number)
        image = pipe(
            "a mug", num_inference_steps=_STEPS, width=_SIDE, height=_SIDE, generator=generator, max_sequence_length=256
        ).images[0]
        if number == 0:
            started = time.perf_counter()
            continue
        make_s += time.perf_counter() - began
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **_PNG)
        durable.write(folder / f"mug-{number:04d}.png", buffer.getvalue())
        durable.sync_folder(folder)
    return (time.perf_counter() - started) / pictures, make_s / pictures
