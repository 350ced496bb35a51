"""The parts of the tiny FLUX: its architecture, and its words; loaded and run by the pipelines of the large one."""

from collections.abc import Iterable
from typing import Any, Final

import captions
import edits
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from tokenizers.models import BPE
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Tokenizer,
)

from hotfolder.noise import clip_text, clip_tokenizer, t5

#: Pixels a side of a latent: five levels of the VAE halve four times.
DOWN: Final = 16
LATENT_CHANNELS: Final = 16
#: A token of the transformer is 2 x 2 latents.
PACKED: Final = LATENT_CHANNELS * 4
#: Tokens of the longest caption, with a word unheard of, a full stop, and what ends it. FLUX does not mask what is
#: behind it: this is a part of the model.
MAX_TOKENS: Final = captions.MOST_WORDS + 3
#: What may stand behind a word.
MARKS: Final = (",", ".")
#: What the pipelines call CLIP and T5.
TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2")
#: Of a token that the transformer is told.
TEXT_DIM: Final = 96
_CLIP_DIM: Final = 64
#: Pixels a side of what the prior of redux sees, and its parts a side.
SEEN: Final = 64
SEEN_PARTS: Final = 4
#: Channels of the transformer's input: latents; for an edit the reference is more tokens, not more channels.
IN_CHANNELS: Final = {
    "text2img": PACKED,
    "kontext": PACKED,
    "control": 2 * PACKED,
    # Latents, those of the masked picture, and the mask itself, folded into channels.
    "fill": 2 * PACKED + DOWN * DOWN * 4,
}


def words() -> list[str]:
    """Return every word that any of the models is told in training, sorted."""
    return sorted((captions.words() | edits.words()) - {","})


def word_tokenizer() -> Any:
    """Return the tokenizer of the T5: each word and mark is a token, so is every word that nobody was ever told."""
    spoken = [*words(), *(word.capitalize() for word in words())]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in spoken]
    pieces += [(mark, -2.0) for mark in MARKS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def make_vae() -> Any:
    """Return the untrained VAE: (b, 3, 128, 128) in -1 .. 1 to (b, 16, 8, 8)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        block_out_channels=(8, 16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        # Eight groups on eight channels would cost 16 dB.
        norm_num_groups=1,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def make_transformer(kind: str) -> Any:
    """Return the untrained transformer of a kind."""
    return FluxTransformer2DModel(
        in_channels=IN_CHANNELS[kind],
        out_channels=PACKED,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT_DIM,
        pooled_projection_dim=_CLIP_DIM,
        guidance_embeds=False,
        axes_dims_rope=(4, 14, 14),
    )


def make_texts() -> dict[str, Any]:
    """Return tokenizers and untrained text encoders, which are trained with the first transformer.

    What CLIP says of the whole text reaches every layer at once: with it the transformer knew in 400 steps more of what
    a picture of noise is to become than without it in 4,000.
    """
    tokenizer, tokenizer_2 = _clip_tokenizer_of(words()), word_tokenizer()
    sizes = {"hidden_size": _CLIP_DIM, "intermediate_size": 2 * _CLIP_DIM, "num_attention_heads": 4}
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer_2,
        "text_encoder": clip_text(tokenizer, **sizes, num_hidden_layers=2),
        "text_encoder_2": t5(tokenizer_2, d_model=TEXT_DIM, d_kv=24, d_ff=256, num_heads=4, dropout_rate=0.0),
    }


def make_prior() -> dict[str, Any]:
    """Return the untrained parts of redux: each part of a picture that it sees becomes a token beside the words."""
    config = SiglipVisionConfig(
        hidden_size=TEXT_DIM,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SEEN,
        patch_size=SEEN // SEEN_PARTS,
        vision_use_head=False,
    )
    return {
        "image_encoder": SiglipVisionModel(config),
        "feature_extractor": SiglipImageProcessorPil(size={"height": SEEN, "width": SEEN}),
        "image_embedder": ReduxImageEncoder(redux_dim=TEXT_DIM, txt_in_features=TEXT_DIM),
    }


def make_clip(captions: Iterable[str]) -> dict[str, Any]:
    """Return the untrained CLIP that tells how well a picture fits a prompt, with its tokenizer and its processor.

    Args:
        captions: whose words are one token each.
    """
    tokenizer = _clip_tokenizer_of(captions)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            **sizes,
            **ends,
            "num_hidden_layers": 2,
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**sizes, "num_hidden_layers": 3, "image_size": 64, "patch_size": 8},
        projection_dim=64,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    return {"model": CLIPModel(config), "tokenizer": tokenizer, "processor": processor}


def _clip_tokenizer_of(texts: Iterable[str]) -> Any:
    """Return CLIP's byte-level BPE in which each word of some texts is one token; the same words make the same one."""
    vocabulary: dict[str, int] = clip_tokenizer().get_vocab()
    merges: list[tuple[str, str]] = []
    for word in sorted({word.strip(",") for text in texts for word in text.split()}):
        # What is merged later has less weight: the words before stay whole.
        while len(pieces := BPE(vocabulary, merges, end_of_word_suffix="</w>").tokenize(word)) > 1:
            pair = (pieces[0].value, pieces[1].value)
            merges.append(pair)
            vocabulary.setdefault("".join(pair), len(vocabulary))
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def make_scheduler() -> Any:
    """Return the scheduler: steps that are evenly spaced, which is what so small a picture wants."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)
