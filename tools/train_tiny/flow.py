"""Flow matching, as FLUX is trained: shown (1 - t) x + t noise and told t, a transformer is to say noise - x."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from course import DEVICE
from diffusers import AutoencoderKL, DiffusionPipeline, FluxPipeline, FluxTransformer2DModel
from models import MAX_TOKENS, PACKED, make_transformer

#: Pictures that are encoded at once.
_AT_ONCE: Final = 32
#: How much more often than evenly a picture is shown with much noise, as `shift` of the schedulers: the VAE makes the
#: same picture of latents that are off by a fifth.
_SHIFT: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """What conditions a batch."""

    #: (b, n, d) and (b, p), as the pipelines take them.
    tokens: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained transformer, whose word another is to say: unlike a picture it has no noise of its own."""

    transformer: Any
    #: Of each of the batch, and then for each an empty prompt, from which it is guided away.
    told: Told
    scale: float


class Words:
    """Tokenizers and text encoders, in training or not."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self._clip, self._tokenizer = parts["text_encoder"], parts["tokenizer"]
        self._t5, self._tokenizer_2 = parts["text_encoder_2"], parts["tokenizer_2"]

    def told(self, captions: Sequence[str | None], *, pooled: Sequence[bool] | None = None) -> Told:
        """Encode captions as the pipelines do; None is what `redux` tells beside its picture: zeros.

        Args:
            pooled: of each whether CLIP says it too, not only the tokens; by default it does.
        """
        texts = [text or "" for text in captions]
        # CLIP looks back only, and is asked at the end of a text: what the pipelines put behind that is left out.
        pieces = self._tokenizer(texts, padding=True, truncation=True).input_ids
        tokens = self._tokenizer_2(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True).input_ids
        where = self._t5.device
        said = torch.tensor([[float(text is not None)] for text in captions], device=where)
        twice = said if pooled is None else said * torch.tensor([[float(one)] for one in pooled], device=where)
        return Told(
            tokens=self._t5(torch.tensor(tokens, device=where))[0] * said[:, :, None],
            pooled=self._clip(torch.tensor(pieces, device=where)).pooler_output * twice,
        )


def loss(
    transformer: Any,
    latents: torch.Tensor,
    told: Told,
    chance: torch.Generator,
    *,
    beside: torch.Tensor | None = None,
    reference: torch.Tensor | None = None,
    teacher: Teacher | None = None,
    noise: torch.Tensor | None = None,
    begun: float = 0.0,
) -> torch.Tensor:
    """Return how far a transformer is off.

    Args:
        latents: (b, n, 64), packed; where the transformer is or not, as all else but what is told.
        beside: (b, n, c), more channels of the same tokens: what `fill` and `control` are shown.
        reference: (b, n, 64), more tokens: what `kontext` is shown.
        teacher: to say the same as this, not what is true of the latents.
        noise: (b, n, 64); None: it is drawn from `chance`, by the CPU: the same on every machine.
        begun: the share of the batch, 0 to 1, its first ones, of which noise only is shown, as of a picture that is
            begun.
    """
    where = told.tokens.device
    latents = latents.to(where)
    noise = (torch.randn(latents.shape, generator=chance) if noise is None else noise).to(where)
    t = _times(len(latents), chance, begun).to(where)
    seen = (1 - t[:, None, None]) * latents + t[:, None, None] * noise
    ids = _ids(latents.shape[1]).to(where)
    if beside is not None:
        seen = torch.cat([seen, beside.to(where)], dim=2)
    if reference is not None:
        other = ids.clone()
        other[:, 0] = 1
        seen, ids = torch.cat([seen, reference.to(where)], dim=1), torch.cat([ids, other])

    def said(by: Any, of: Told, seen: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = by(
            hidden_states=seen,
            encoder_hidden_states=of.tokens,
            pooled_projections=of.pooled,
            timestep=t,
            img_ids=ids,
            txt_ids=torch.zeros(of.tokens.shape[1], 3, device=where),
            return_dict=False,
        )[0]
        return found.float()[:, : latents.shape[1]]

    wanted = noise - latents
    if teacher is not None:
        with torch.no_grad():
            guided, empty = said(teacher.transformer, teacher.told, seen.repeat(2, 1, 1), t.repeat(2)).chunk(2)
            wanted = empty + teacher.scale * (guided - empty)
    return torch.nn.functional.mse_loss(said(transformer, told, seen, t), wanted)


def _ids(tokens: int) -> torch.Tensor:
    side = round(tokens**0.5)
    ids: torch.Tensor = FluxPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32)  # noqa: SLF001
    return ids


def _times(count: int, chance: torch.Generator, begun: float) -> torch.Tensor:
    """Return t of each: half of them mostly in the middle, half anywhere, all shifted to where words decide.

    Args:
        begun: the share of them, its first ones, of which it is 1.
    """
    middle = torch.sigmoid(torch.randn(count, generator=chance))
    t = torch.where(torch.rand(count, generator=chance) < 0.5, middle, torch.rand(count, generator=chance))
    t = _SHIFT * t / (1 + (_SHIFT - 1) * t)
    t[: round(begun * count)] = 1.0
    return t


# --- latents ---


def load_vae(out: Path) -> Any:
    """Load the trained VAE."""
    vae = AutoencoderKL.from_pretrained(str(out / "vae"), local_files_only=True).eval().to(DEVICE)
    return vae.requires_grad_(requires_grad=False)


@torch.no_grad()
def encoded(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """Return pictures (b, 3, h, w) in -1 .. 1 as packed latents (b, n, 64), float16."""
    made = []
    for first in range(0, len(images), _AT_ONCE):
        latents = vae.encode(images[first : first + _AT_ONCE].to(vae.device)).latent_dist.mode()
        scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
        made.append(pack(scaled).half().cpu())
    return torch.cat(made)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return (b, c, h, w) latents as (b, h/2 * w/2, c * 4) tokens."""
    return FluxPipeline._pack_latents(latents, *latents.shape)  # type: ignore[no-any-return]  # noqa: SLF001


# --- going on from text2img ---


def load_base(out: Path, kind: str = "text2img") -> Any:
    """Load what a training begins with beside its transformer: that of the kind itself, where it was trained before.

    Its tokenizers go with its text encoders: in another one a word has another number.
    """
    folder = out / kind if (out / kind).is_dir() else out / "text2img"
    return DiffusionPipeline.from_pretrained(str(folder), local_files_only=True).to(DEVICE)


def from_text2img(out: Path, kind: str) -> Any:
    """Return the transformer of a kind that draws what the trained `text2img` draws, and does not look at the rest."""
    trained = FluxTransformer2DModel.from_pretrained(str(out / "text2img" / "transformer"), local_files_only=True)
    weights = trained.state_dict()
    transformer = make_transformer(kind)
    wider = torch.zeros_like(transformer.get_parameter("x_embedder.weight"))
    wider[:, :PACKED] = weights["x_embedder.weight"]
    weights["x_embedder.weight"] = wider
    transformer.load_state_dict(weights)
    return transformer
