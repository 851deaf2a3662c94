"""The recipe in numbers: one place that says how large each model is and how long it trains."""

from __future__ import annotations

from dataclasses import dataclass, field

from generation.learning.dataset import Mix
from generation.learning.loop import Intervals, Schedule
from generation.learning.weights import LearningRates


@dataclass(frozen=True, slots=True)
class AutoencoderShape:
    """Arguments of ``PatchAutoencoder``."""

    picture_px: int = 64
    patch_px: int = 8
    latent_channels: int = 24
    encoder_width: int = 192
    encoder_layers: int = 3
    decoder_width: int = 256
    decoder_layers: int = 4
    heads: int = 4


@dataclass(frozen=True, slots=True)
class DenoiserShape:
    """Arguments of ``TokenDenoiser`` that do not follow from elsewhere."""

    width: int = 384
    layers: int = 6
    heads: int = 6


@dataclass(frozen=True, slots=True)
class ScorerShape:
    """Arguments of ``PictureTextScorer``."""

    stem_width: int = 32
    stage_widths: tuple[int, ...] = (64, 128, 160)
    embedding_width: int = 256
    text_width: int = 384


# The same for every size of the image model, so that their figures compare. Its rates are high, its decay strong: it
# learns six thousand pictures in a quarter of an hour, and shall not learn them by heart.
SCORING = Schedule(
    total_steps=1500,
    batch=128,
    cooldown_steps=1000,
    rates=LearningRates(muon=8e-3, adamw=2e-3, weight_decay=0.1),
    average_decay=0.995,
)


REFINEMENT = Schedule(
    total_steps=400,
    batch=64,
    warmup_steps=30,
    cooldown_steps=200,
    rates=LearningRates(muon=2e-4, adamw=2e-4, weight_decay=0.0),
    average_decay=0.99,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what is trained.

    Args:
        name: Of the recipe, and of its folder below ``learning`` in the data directory.
        mix: The composed pictures of the data set.
        autoencoder: Its size.
        reconstruction: Its training.
        denoiser: Its size.
        diffusion: Its training.
        intervals: How often to save and draw.
        refinement: The last stage of the autoencoder's training, of its decoder alone.
        scorer: The size of the scorer.
        scoring: Its training.
        scale: Pixels of a picture for one of the scenes' 64, each way.
        compiled: Whether the denoiser's passes are compiled.
    """

    name: str
    mix: Mix
    autoencoder: AutoencoderShape
    reconstruction: Schedule
    denoiser: DenoiserShape
    diffusion: Schedule
    intervals: Intervals = field(default_factory=Intervals)
    refinement: Schedule = REFINEMENT
    scorer: ScorerShape = field(default_factory=ScorerShape)
    scoring: Schedule = SCORING
    scale: int = 1
    compiled: bool = False


# 4.6 and 11.4 million parameters; a step of either takes 2 to 3.5 s on two CPU cores that are otherwise idle.
CPU = Recipe(
    name="cpu",
    mix=Mix(background=5000, recolour=2500, place=2500, count=3000, pair=5000),
    autoencoder=AutoencoderShape(),
    reconstruction=Schedule(total_steps=420, batch=128, cooldown_steps=250, average_decay=0.99),
    denoiser=DenoiserShape(),
    diffusion=Schedule(total_steps=40_000, batch=160, cooldown_steps=4_000, average_decay=0.999),
)

# 5.5 and 23.2 million parameters: together the most that 60 MB of fp16 hold, so that what a GPU learns can ship.
# 128 px in 16x16 latents; batches that fill a GPU.
GPU = Recipe(
    name="gpu",
    mix=Mix(background=20_000, recolour=10_000, place=8_000, count=12_000, pair=30_000),
    autoencoder=AutoencoderShape(picture_px=128, latent_channels=16, decoder_width=288),
    reconstruction=Schedule(total_steps=20_000, batch=256, warmup_steps=500, cooldown_steps=5_000, average_decay=0.999),
    denoiser=DenoiserShape(width=512, layers=7, heads=8),
    diffusion=Schedule(total_steps=200_000, batch=1024, warmup_steps=500, cooldown_steps=20_000, average_decay=0.9995),
    scale=2,
    compiled=True,
)

# The same chain on drawn shapes instead of packages, and on models that learn them in about a minute.
SMOKE = Recipe(
    name="smoke",
    mix=Mix(background=60, recolour=20, place=20, count=30, pair=40),
    autoencoder=AutoencoderShape(
        latent_channels=8, encoder_width=64, encoder_layers=1, decoder_width=96, decoder_layers=1, heads=2
    ),
    reconstruction=Schedule(total_steps=120, batch=32, warmup_steps=10, cooldown_steps=60, average_decay=0.95),
    denoiser=DenoiserShape(width=96, layers=2, heads=2),
    diffusion=Schedule(
        total_steps=200,
        batch=64,
        warmup_steps=10,
        cooldown_steps=100,
        rates=LearningRates(muon=8e-3, adamw=3e-3),
        average_decay=0.95,
    ),
    refinement=Schedule(
        total_steps=60,
        batch=16,
        warmup_steps=5,
        cooldown_steps=40,
        rates=LearningRates(muon=5e-4, adamw=5e-4, weight_decay=0.0),
        average_decay=0.9,
    ),
    scorer=ScorerShape(stem_width=16, stage_widths=(32, 48), embedding_width=32, text_width=64),
    scoring=Schedule(
        total_steps=150,
        batch=32,
        warmup_steps=10,
        cooldown_steps=80,
        rates=LearningRates(muon=8e-3, adamw=2e-3, weight_decay=0.1),
        average_decay=0.95,
    ),
    intervals=Intervals(checkpoint_s=3.0, sheet_s=3600.0),
)

RECIPES = {recipe.name: recipe for recipe in (CPU, GPU, SMOKE)}
