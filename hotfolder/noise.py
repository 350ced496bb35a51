"""Models whose weights are made up here: FLUX pipelines and helper models of the real architecture, but very small.

They paint coloured noise, at any size, and find what is not there; but each goes through the same loading,
conditioning, denoising and decoding as the model it stands for. The weights are whole numbers from a seeded generator,
scaled: the same bytes on every machine that has the same library versions. Text encoders, tokenizers and VAE are the
same bytes in all pipelines, as they are in the real family.
"""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

#: Numbers from the generator lie in [-2^23, 2^23): float32 holds each of them exactly.
_RANGE: Final = 1 << 23
#: Width of the text encoders and the transformer's joint attention.
_TEXT_DIM: Final = 32
#: Words that are one token each; all else is spelled out.
_WORDS: Final = (
    *(
        "a",
        "an",
        "the",
        "of",
        "on",
        "in",
        "and",
        "with",
        "photo",
        "picture",
        "product",
        "table",
        "cat",
        "mug",
        "coffee",
    ),
    *("wooden", "red", "green", "blue", "yellow", "white", "black"),
)
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'-()"


def _text2img() -> Any:
    from diffusers import FluxPipeline

    return FluxPipeline(transformer=_transformer("text2img", 64), scheduler=_scheduler(), vae=_vae(), **_texts())


def _kontext() -> Any:
    from diffusers import FluxKontextPipeline

    return FluxKontextPipeline(transformer=_transformer("kontext", 64), scheduler=_scheduler(), vae=_vae(), **_texts())


def _fill() -> Any:
    from diffusers import FluxFillPipeline

    return FluxFillPipeline(transformer=_transformer("fill", 384), scheduler=_scheduler(), vae=_vae(), **_texts())


def _control() -> Any:
    from diffusers import FluxControlPipeline

    return FluxControlPipeline(transformer=_transformer("control", 128), scheduler=_scheduler(), vae=_vae(), **_texts())


def _redux() -> Any:
    """The prior alone, as in the real repository: text encoders come from the base model."""
    from diffusers import FluxPriorReduxPipeline
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
    from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    return FluxPriorReduxPipeline(
        image_encoder=_seeded("image_encoder", SiglipVisionModel(config)),
        feature_extractor=SiglipImageProcessorPil(size={"height": 64, "width": 64}),
        image_embedder=_seeded("image_embedder", ReduxImageEncoder(redux_dim=32, txt_in_features=_TEXT_DIM)),
    )


class _Together:
    """Parts that transformers keeps in one folder."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def save_pretrained(self, folder: Path) -> None:
        for part in self._parts:
            part.save_pretrained(folder)


def _detect() -> Any:
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
        SwinConfig,
    )

    tokenizer = _bert_tokenizer()
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=2,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=_TEXT_DIM,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=256,
        ),
        num_queries=20,
        encoder_layers=1,
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_layers=2,  # the first one's boxes are shared with the others
        decoder_ffn_dim=64,
        decoder_attention_heads=2,
        d_model=32,
    )
    return _Together(
        _seeded("detect", GroundingDinoForObjectDetection(config)),
        GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 192}),
        tokenizer,
    )


def _depth() -> Any:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=70,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    processor = DPTImageProcessorPil(
        size={"height": 70, "width": 70}, keep_aspect_ratio=True, ensure_multiple_of=14, do_pad=False
    )
    return _Together(_seeded("depth", DepthAnythingForDepthEstimation(config)), processor)


def _pose() -> Any:
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation, VitPoseImageProcessorPil

    backbone = VitPoseBackboneConfig(
        image_size=[64, 48], hidden_size=32, num_hidden_layers=2, num_attention_heads=2, out_indices=[2]
    )
    # As many labels as COCO has joints: one map each.
    config = VitPoseConfig(backbone_config=backbone, num_labels=17)
    return _Together(
        _seeded("pose", VitPoseForPoseEstimation(config)), VitPoseImageProcessorPil(size={"height": 64, "width": 48})
    )


def _upscale() -> Any:
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution, Swin2SRImageProcessorPil

    config = Swin2SRConfig(
        image_size=16, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, mlp_ratio=2.0, upscale=2
    )
    return _Together(_seeded("upscale", Swin2SRForImageSuperResolution(config)), Swin2SRImageProcessorPil(pad_size=4))


#: Name -> what makes the model, something with `save_pretrained(folder)`.
RECIPES: Final[dict[str, Callable[[], Any]]] = {
    "noise": _text2img,
    "noise-kontext": _kontext,
    "noise-fill": _fill,
    "noise-control": _control,
    "noise-redux": _redux,
    "tiny-detect": _detect,
    "tiny-depth": _depth,
    "tiny-pose": _pose,
    "tiny-upscale": _upscale,
}


def _transformer(name: str, in_channels: int) -> Any:
    """FLUX's own architecture: one double and one single block, two heads.

    Args:
        in_channels: packed latents are 64 wide (16 channels x 2 x 2); control adds 64 of its picture, fill adds 64 of
            the masked picture and 256 of the mask (8 x 8 pixels x 2 x 2).
    """
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        in_channels=in_channels,
        out_channels=64,  # without it the output would be as wide as the input
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_TEXT_DIM,
        pooled_projection_dim=_TEXT_DIM,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),  # even, and attention_head_dim together
    )
    return _seeded(f"transformer {name}", model)


def _vae() -> Any:
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=256,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return _seeded("vae", model)


def _scheduler() -> Any:
    """FLUX.1-dev's."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def _texts() -> dict[str, Any]:
    """The four text components: CLIP for the pooled embedding, T5 for the one per token."""
    tokenizer, tokenizer_2 = clip_tokenizer(), _t5_tokenizer()
    clip = clip_text(tokenizer, hidden_size=_TEXT_DIM, num_hidden_layers=2)
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer_2,
        "text_encoder": _seeded("text_encoder", clip),
        "text_encoder_2": _seeded("text_encoder_2", t5(tokenizer_2, d_model=_TEXT_DIM, d_kv=16, d_ff=64, num_heads=2)),
    }


def clip_text(tokenizer: Any, **sizes: int) -> Any:
    """Return a small CLIP for texts that knows which tokens begin and end one."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        **{"intermediate_size": 64, "num_attention_heads": 2, **sizes},
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,  # the pooled embedding is taken at its position
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def t5(tokenizer: Any, **sizes: float) -> Any:
    """Return a small T5 encoder, of the sort that FLUX has."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(**sizes, vocab_size=len(tokenizer), num_layers=2, feed_forward_proj="gated-gelu")
    return T5EncoderModel(config)


def clip_tokenizer() -> Any:
    """Byte-level BPE without merges; as in the real one each byte is there twice, inside and at the end of a word."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], model_max_length=77)


def _bert_tokenizer() -> Any:
    """WordPiece, of small letters as in the real one."""
    from transformers import BertTokenizer

    letters = _LETTERS.lower()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=256)


def _t5_tokenizer() -> Any:
    """Unigram: words are one token each, all else is spelled out; a trained list falls apart on so few words."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in _WORDS]
    pieces += [(letter, -6.0) for letter in _LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _seeded(name: str, module: Any) -> Any:
    """Give `module` its weights: uniform, of variance 1 / fan-in; norms 1, biases 0."""
    import torch

    generator = torch.Generator("cpu").manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for key, weight in sorted(module.named_parameters()):
            if weight.dim() == 0:
                continue  # CLIP's temperature: it is what it is
            if weight.dim() == 1:
                weight.fill_(0.0 if key.endswith("bias") else 1.0)
                continue
            is_table = isinstance(module.get_submodule(key.rpartition(".")[0]), torch.nn.Embedding)
            fan_in = 1 if is_table else weight[0].numel()
            numbers = torch.randint(-_RANGE, _RANGE, weight.shape, generator=generator)
            weight.copy_(numbers.to(torch.float32).mul_(math.sqrt(3.0 / fan_in) / _RANGE))
    return module.eval()
