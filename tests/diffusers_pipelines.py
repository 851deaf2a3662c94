"""Tiny randomly initialised pipelines of diffusers, one of each family, with real tokenizers of a few letters."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

_LETTERS = "abcdefghijklmnopqrstuvwxyz 0123456789,.-"
_WIDTH = 32
_CLIP = {
    "vocab_size": 60,
    "hidden_size": _WIDTH,
    "intermediate_size": 37,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 77,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "projection_dim": _WIDTH,
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _tokenizer(limit: int) -> transformers.PreTrainedTokenizerFast:
    """A token a letter, with a beginning and an end."""
    special = ["<pad>", "<s>", "</s>"]
    vocabulary = {sign: number for number, sign in enumerate([*special, "<unk>", *_LETTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.add_special_tokens([AddedToken(sign, special=True) for sign in special])
    core.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=limit,
    )


def _clip(*, projects: bool = False) -> Any:
    config = transformers.CLIPTextConfig(**_CLIP)
    return (transformers.CLIPTextModelWithProjection if projects else transformers.CLIPTextModel)(config).eval()


def _t5() -> Any:
    config = transformers.T5Config(
        vocab_size=60, d_model=_WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return transformers.T5EncoderModel(config).eval()


def _vae(channels: int = 4, **options: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=8,
        **options,
    ).eval()


def _unet(**options: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=options.pop("cross_attention_dim", _WIDTH),
        attention_head_dim=options.pop("attention_head_dim", 4),
        norm_num_groups=8,
        **options,
    ).eval()


def stable_diffusion(prediction: str = "epsilon", **unet: Any) -> Any:
    scheduler = diffusers.DDIMScheduler(
        **NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=prediction
    )
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_clip(),
        tokenizer=_tokenizer(77),
        unet=_unet(**unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> Any:
    unet = _unet(
        cross_attention_dim=2 * _WIDTH,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_clip(),
        text_encoder_2=_clip(projects=True),
        tokenizer=_tokenizer(77),
        tokenizer_2=_tokenizer(77),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**NOISE, steps_offset=1, timestep_spacing="leading"),
    )


def pixart(*, sigma: bool = True) -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=_WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    ).eval()
    kind = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    return kind(
        tokenizer=_tokenizer(300),
        text_encoder=_t5(),
        vae=_vae(),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(**NOISE),
    )


def stable_diffusion_3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=_WIDTH,
        pooled_projection_dim=2 * _WIDTH,
        out_channels=4,
    ).eval()
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(shift_factor=0.0609, scaling_factor=1.5035, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(projects=True),
        tokenizer=_tokenizer(77),
        text_encoder_2=_clip(projects=True),
        tokenizer_2=_tokenizer(77),
        text_encoder_3=_t5(),
        tokenizer_3=_tokenizer(77),
    )


def flux(*, takes_guidance: bool = True) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_WIDTH,
        pooled_projection_dim=_WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=takes_guidance,
    ).eval()
    pipe = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=takes_guidance),
        vae=_vae(shift_factor=0.1, scaling_factor=0.36, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(),
        tokenizer=_tokenizer(77),
        text_encoder_2=_t5(),
        tokenizer_2=_tokenizer(77),
        transformer=transformer,
    )
    pipe.default_sample_size = 16
    return pipe


def dit() -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    ).eval()
    labels = {0: "tench, Tinca tinca", 1: "goldfish"}
    return diffusers.DiTPipeline(
        transformer=transformer, vae=_vae(), scheduler=diffusers.DDIMScheduler(**NOISE), id2label=labels
    )


FAMILIES = {
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-v": lambda: stable_diffusion("v_prediction"),
    "stable-diffusion-xl": stable_diffusion_xl,
    "pixart-alpha": lambda: pixart(sigma=False),
    "pixart-sigma": pixart,
    "stable-diffusion-3": stable_diffusion_3,
    "flux": flux,
    "flux-schnell": lambda: flux(takes_guidance=False),
}


def make(family: str, seed: int = 0) -> Any:
    """A pipeline whose denoiser says something: the last layers of some families begin at zero."""
    torch.manual_seed(seed)
    pipe = dit() if family == "dit" else FAMILIES[family]()
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not bool(parameter.any()):
                parameter.normal_(std=0.05)
    pipe.set_progress_bar_config(disable=True)
    return pipe
