"""redux: a variation of a picture. A prior turns the picture into tokens, which stand beside the prompt's."""

from typing import Any, Final

from hotfolder.engine import Request
from hotfolder.kinds.kind import Kind


def _condition(prior: Any, request: Request, tokens: Any, pooled: Any) -> tuple[Any, Any]:
    """Add the picture to the embeddings of the prompt.

    The prior's two parts are called here, not the prior: by itself it sets zeros of FLUX.1's own size, (1, 512, 4096),
    beside the picture; it scales the pooled embedding, which is kept for the next picture, in place; and its
    `prompt_embeds_scale` weakens the prompt together with the picture.

    Args:
        tokens: (1, n, d), from T5.
        pooled: (1, p), from CLIP.
    Returns: (1, n + m, d) and (1, p): m tokens of the picture, times `image_strength`.
    """
    import torch

    if not request.prompt:
        # The model card's way: no prompt is no tokens, not those of an empty one.
        tokens, pooled = tokens.new_zeros(tokens.shape), pooled.new_zeros(pooled.shape)
    # One picture: a list would be blended into one embedding.
    seen = prior.encode_image(request.pictures["image"], tokens.device, 1)
    picture = prior.image_embedder(seen).image_embeds
    if request.image_strength is not None:
        picture *= request.image_strength
    return torch.cat([tokens, picture], dim=1), pooled


KIND: Final = Kind(
    pipeline="FluxPriorReduxPipeline",
    in_channels=None,
    base="FluxPipeline",
    base_in_channels=lambda latents: latents.packed,
    needs=frozenset({"image"}),
    refuses=frozenset({"true_cfg"}),  # what it steers away from would need tokens of a picture too
    fits=False,
    condition=_condition,
)
