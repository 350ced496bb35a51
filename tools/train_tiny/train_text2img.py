"""Trains the transformer of `tiny`, and its T5, to draw what a caption says; needs the VAE of train_vae.py.

    python tools/train_tiny/train_text2img.py --out build/tiny [--steps 20000]

Flow matching, as in FLUX: the model is shown (1 - t) x + t noise and told t, and is to say noise - x. Stopped, it goes
on from its last checkpoint. Writes OUT/text2img, a whole pipeline as diffusers loads it.
"""

from pathlib import Path
from typing import Any, Final

import torch
from course import Course, half_where_quick, options
from diffusers import AutoencoderKL, FluxPipeline
from models import MAX_TOKENS, PACKED, make_scheduler, make_texts, make_transformer
from pictures import batch, caption, scene

_BATCH: Final = 64
#: Of all captions; what is drawn without one helps those with.
_WITHOUT: Final = 0.1
#: Scenes that are drawn and encoded beforehand, so many at a time.
_POOL: Final = 24_000
_AT_ONCE: Final = 32


def main() -> None:
    """Train, from the last checkpoint on."""
    told = options(__doc__ or "", steps=20_000, pool=_POOL)
    torch.manual_seed(told.seed)
    vae = AutoencoderKL.from_pretrained(told.out / "vae", local_files_only=True).eval()
    texts, transformer = make_texts(), make_transformer("text2img")
    t5 = texts["text_encoder_2"]
    course = Course(
        told.out / "courses" / "text2img",
        {"transformer": transformer, "text_encoder_2": t5},
        steps=told.steps,
        rate=1.5e-3,
        ema=0.9995,
        seed=told.seed,
    )
    scenes = [scene(course.seed, number) for number in range(told.pool)]
    latents = encoded(vae, scenes, told.out / "courses" / f"latents-{course.seed}-{told.pool}.pt")
    flow = Flow(transformer, texts)

    def loss_of(step: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(course.seed * 1_000_003 + step)
        chosen = torch.randint(len(scenes), (_BATCH,), generator=chance).tolist()
        captions = [caption(scenes[number], step, number) for number in chosen]
        empty = torch.rand(_BATCH, generator=chance) < _WITHOUT
        said = ["" if none else text for text, none in zip(captions, empty, strict=True)]
        return flow.loss(latents[chosen].float(), said, chance)

    course.run(loss_of)
    parts = {**texts, "text_encoder_2": course.averaged["text_encoder_2"].eval()}
    FluxPipeline(
        transformer=course.averaged["transformer"].eval(), scheduler=make_scheduler(), vae=vae, **parts
    ).save_pretrained(told.out / "text2img")


def encoded(vae: Any, scenes: list[Any], kept: Path) -> torch.Tensor:
    """Return the packed latents of scenes as float16 (n, 16, 64); made once, kept in a file."""
    if kept.exists():
        return torch.load(kept, weights_only=True)  # type: ignore[no-any-return]
    made = []
    with torch.no_grad():
        for first in range(0, len(scenes), _AT_ONCE):
            images = batch(scenes[first : first + _AT_ONCE])
            made.append(pack(scaled(vae, vae.encode(images).latent_dist.mode())).half())
    latents = torch.cat(made)
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.save(latents, kept)
    return latents


def scaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return latents as the transformer sees them."""
    return (latents - vae.config.shift_factor) * vae.config.scaling_factor  # type: ignore[no-any-return]


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return (b, c, h, w) latents as (b, h/2 * w/2, c * 4) tokens."""
    return FluxPipeline._pack_latents(latents, *latents.shape)  # type: ignore[no-any-return]  # noqa: SLF001


class Flow:
    """A transformer and its words, in training."""

    def __init__(self, transformer: Any, texts: dict[str, Any]) -> None:
        self._transformer, self._t5, self._clip = transformer, texts["text_encoder_2"], texts["text_encoder"].eval()
        self._tokenizer, self._tokenizer_2 = texts["tokenizer"], texts["tokenizer_2"]

    def loss(self, latents: torch.Tensor, captions: list[str], chance: torch.Generator) -> torch.Tensor:
        """Return how far the model is off, for latents (b, 16, 64) and what is said of each."""
        noise = torch.randn(latents.shape, generator=chance)
        t = _times(len(latents), chance)
        seen = (1 - t[:, None, None]) * latents + t[:, None, None] * noise
        side = round(latents.shape[1] ** 0.5)
        ids = FluxPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32)  # noqa: SLF001
        with half_where_quick():
            told, pooled = self._told(captions)
            found = self._transformer(
                hidden_states=seen,
                encoder_hidden_states=told,
                pooled_projections=pooled,
                timestep=t,
                img_ids=ids,
                txt_ids=torch.zeros(MAX_TOKENS, 3),
                return_dict=False,
            )[0]
        return torch.nn.functional.mse_loss(found.float()[..., :PACKED], noise - latents)

    def _told(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self._tokenizer_2(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True)
        told = self._t5(torch.tensor(tokens.input_ids))[0]
        words = self._tokenizer(captions, padding="max_length", max_length=77, truncation=True)
        with torch.no_grad():
            pooled = self._clip(torch.tensor(words.input_ids)).pooler_output
        return told, pooled


def _times(count: int, chance: torch.Generator) -> torch.Tensor:
    """Return t of each: half of them mostly in the middle, where most is decided, half anywhere."""
    middle = torch.sigmoid(torch.randn(count, generator=chance))
    return torch.where(torch.rand(count, generator=chance) < 0.5, middle, torch.rand(count, generator=chance))


if __name__ == "__main__":
    main()
