"""The parts of the tiny FLUX: its architecture, and its words; loaded and run by the pipelines of the large one."""

from pathlib import Path
from typing import Any, Final

from captions import words
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

#: Pixels a side of a latent: five levels of the VAE halve four times.
DOWN: Final = 16
LATENT_CHANNELS: Final = 16
#: A token of the transformer is 2 x 2 latents.
PACKED: Final = LATENT_CHANNELS * 4
#: Tokens of the longest caption, with what ends it. FLUX does not mask what is behind it: it is a part of the model.
MAX_TOKENS: Final = 36
_TEXT_DIM: Final = 96
_CLIP_DIM: Final = 32
#: Channels of the transformer's input: latents; for an edit the reference is more tokens, not more channels.
IN_CHANNELS: Final = {
    "text2img": PACKED,
    "kontext": PACKED,
    "control": 2 * PACKED,
    # Latents, those of the masked picture, and the mask itself, folded into channels.
    "fill": 2 * PACKED + DOWN * DOWN * 4,
}


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
        joint_attention_dim=_TEXT_DIM,
        pooled_projection_dim=_CLIP_DIM,
        guidance_embeds=False,
        axes_dims_rope=(4, 14, 14),
    )


def make_texts() -> dict[str, Any]:
    """Return tokenizers and text encoders; T5 is trained with the first transformer, CLIP stays as it is made here."""
    tokenizer, tokenizer_2 = _clip_tokenizer(), _t5_tokenizer()
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_CLIP_DIM,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,  # the pooled embedding is taken at its position
        pad_token_id=tokenizer.pad_token_id,
    )
    t5 = T5Config(
        vocab_size=len(tokenizer_2),
        d_model=_TEXT_DIM,
        d_kv=24,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer_2,
        "text_encoder": CLIPTextModel(clip),
        "text_encoder_2": T5EncoderModel(t5),
    }


def make_scheduler() -> Any:
    """Return the scheduler: steps that are evenly spaced, which is what so small a picture wants."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def load_part(cls: Any, folder: Path) -> Any:
    """Load a part that was trained before."""
    return cls.from_pretrained(folder, local_files_only=True)


def _clip_tokenizer() -> Any:
    """Byte-level BPE without merges; as in the real one each byte is there twice, inside and at the end of a word."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def _t5_tokenizer() -> Any:
    """Unigram; the list is made by hand, since a trained one falls apart into letters on so few words."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in words() if word != ","]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'-()"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
