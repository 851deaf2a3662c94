"""From a request to pictures of pure noise: sizes, seeds, prompts and initial pictures, each checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor

from generation.errors import InvalidRequestError
from generation.image import noise, pictures
from generation.image.drawing import Drawing, Kept, Sample, renoise
from generation.image.family import Encoded, Posterior, Prompt, Size
from generation.image.samplers import step_arguments
from generation.types import MAX_IMAGES

if TYPE_CHECKING:
    from generation.image.family import Family
    from generation.image.samplers import Samplers
    from generation.types import ImageRequest

#: Longest side and most pixels of a finished picture.
MAX_SIDE_PX = 8192
MAX_PIXELS = 36_000_000
#: What a generator takes, less the pictures that count on from it.
MAX_SEED = 2**63 - 1 - MAX_IMAGES


def prepare(drawing: Drawing, family: Family, samplers: Samplers, fresh_seed: int) -> None:
    """Fill in a drawing so that it can join the passes.

    Args:
        drawing: With its request.
        family: Draws it.
        samplers: Of that family.
        fresh_seed: Taken where the request names none.

    Raises:
        GenerationError: The request cannot be served.
    """
    sampling = drawing.request.sampling
    size, enlargement = sizes(drawing.request, family)
    guidance = family.defaults.guidance_scale if sampling.guidance_scale is None else sampling.guidance_scale
    first = samplers.new(sampling.sampler)
    encoded = family.encode_prompt(
        Prompt(drawing.request.prompt, drawing.request.negative_prompt, size, _style(family, sampling.style), guidance)
    )
    drawing.size, drawing.enlargement, drawing.guidance_scale = size, enlargement, guidance
    drawing.rows, drawing.prompt_tokens, drawing.pictures_left = encoded.rows, encoded.tokens, sampling.n
    drawing.key = (size, _shapes(encoded))
    initial = _Initial.read(drawing.request, size, family)
    seed = fresh_seed if sampling.seed is None else sampling.seed
    if not (0 <= seed <= MAX_SEED and 0 <= (sampling.variation_seed or 0) <= MAX_SEED):
        raise InvalidRequestError(f"A seed is a whole number from 0 to {MAX_SEED}.")
    for index in range(sampling.n):
        scheduler = first if index == 0 else samplers.new(sampling.sampler)
        drawing.samples.append(_sample(drawing, family, scheduler, index, seed, initial))


def enlargement(request: ImageRequest) -> tuple[Tensor, list[int]]:
    """The picture of a request to enlarge, ``(1, 3, height, width) float32``, and by which factors.

    Raises:
        InvalidRequestError: There is none, it is broken, or the result would be too large.
    """
    if request.init_image is None:
        raise InvalidRequestError("An enlargement needs a picture to enlarge.")
    if request.sampling.upscale == 1:
        raise InvalidRequestError("An enlargement needs upscale 2 or 4.")
    picture = pictures.open_picture(request.init_image, "picture")
    factor = request.sampling.upscale
    _require_possible(Size(picture.width * factor, picture.height * factor))
    return pictures.colours(picture), factors(factor)


def factors(factor: int) -> list[int]:
    """A power of two as enlargements by 4 and 2, one after the other."""
    steps = []
    while factor > 1:
        steps.append(4 if factor % 4 == 0 else 2)
        factor //= steps[-1]
    return steps


def sizes(request: ImageRequest, family: Family) -> tuple[Size, int]:
    """At which size a request is drawn, and by how much it is enlarged afterwards.

    Raises:
        InvalidRequestError: The model cannot make that size.
    """
    sampling = request.sampling
    wanted = Size(sampling.width_px, sampling.height_px) if sampling.width_px else family.near(sampling.aspect)
    drawn = family.fit(wanted)
    factor = wanted.width_px // drawn.width_px * sampling.upscale
    _require_possible(Size(drawn.width_px * factor, drawn.height_px * factor))
    return drawn, factor


def _require_possible(size: Size) -> None:
    if max(size.width_px, size.height_px) > MAX_SIDE_PX or size.pixels > MAX_PIXELS:
        raise InvalidRequestError(
            f"The result would have {size.width_px}x{size.height_px} pixels: at most {MAX_SIDE_PX} a side and "
            f"{MAX_PIXELS // 1_000_000} million in all are made."
        )


def _style(family: Family, style: str | None) -> str | None:
    if style is None or style in family.styles:
        return style
    if not family.styles:
        raise InvalidRequestError("This model has no styles by name: describe the style in the prompt.")
    raise InvalidRequestError(f"There is no style {style[:40]!r}. Choose one of {', '.join(family.styles)}.")


def _shapes(encoded: Encoded) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(tensor.shape)) for name, tensor in sorted(encoded.condition.items()))


class _Initial:
    """An initial picture and its mask, as latents."""

    def __init__(self, pixels: Tensor, posterior: Posterior, pixel_mask: Tensor | None) -> None:
        self.pixels, self.posterior, self.pixel_mask = pixels, posterior, pixel_mask

    @classmethod
    def read(cls, request: ImageRequest, size: Size, family: Family) -> _Initial | None:
        """Unpack what a request begins from, None where it begins from noise alone.

        Raises:
            InvalidRequestError: A picture is broken or does not fit the other.
        """
        if request.init_image is None:
            if request.mask_image is not None:
                raise InvalidRequestError("A mask needs an initial picture that it belongs to.")
            return None
        picture = pictures.open_picture(request.init_image, "initial picture")
        pixel_mask = None
        if request.mask_image is not None:
            mask = pictures.open_picture(request.mask_image, "mask")
            if mask.size != picture.size:
                raise InvalidRequestError(
                    f"The mask has {mask.width}x{mask.height} pixels and the initial picture "
                    f"{picture.width}x{picture.height}: both must have the same size."
                )
            pixel_mask = pictures.mask(pictures.cover(mask, size, smooth=False))
            if not bool(pixel_mask.any()):
                raise InvalidRequestError("The mask is black everywhere: paint white what is to be drawn anew.")
        pixels = pictures.colours(pictures.cover(picture, size)).to(family.device)
        return cls(pixels, family.encode(pixels), pixel_mask)

    def latents(self, generator: Any) -> Tensor:
        """Of the picture, drawn from their posterior."""
        mean, deviation = self.posterior.mean, self.posterior.deviation
        if deviation is None:
            return mean
        return mean + deviation * noise.draw(tuple(mean.shape), generator).to(mean.device)

    def kept(self, latents: Tensor) -> Kept | None:
        """What a mask leaves as it is."""
        if self.pixel_mask is None:
            return None
        mask = F.interpolate(self.pixel_mask, latents.shape[-2:]).to(latents.device)
        return Kept(latents, mask, self.pixels, self.pixel_mask)


def _sample(
    drawing: Drawing, family: Family, scheduler: Any, index: int, first_seed: int, initial: _Initial | None
) -> Sample:
    sampling = drawing.request.sampling
    steps = sampling.num_inference_steps or family.defaults.num_inference_steps
    _set_timesteps(family, scheduler, steps, drawing.size)
    seed, variation = _seeds(drawing.request, first_seed, index)
    generator = noise.new_generator(seed)
    shape = (1, *family.latent_shape(drawing.size))
    # Random numbers are drawn in the order of diffusers' pipelines: the initial picture's, then the noise.
    clean = None if initial is None else initial.latents(generator)
    start = noise.draw(shape, generator)
    if variation is not None:
        other = noise.draw(shape, noise.new_generator(variation))
        start = noise.blend(start, other, sampling.variation_strength)
    start = start.to(family.device)
    if clean is None or initial is None or (initial.pixel_mask is not None and sampling.strength == 1.0):
        latents, timesteps = start * getattr(scheduler, "init_noise_sigma", 1.0), scheduler.timesteps
    else:
        latents, timesteps = _begin_within(scheduler, clean, start, _skipped(family, steps, sampling.strength))
    return Sample(
        drawing=drawing,
        index=index,
        seed=seed if variation is None else variation,
        scheduler=scheduler,
        generator=generator,
        latents=latents,
        noise=start,
        timesteps=timesteps,
        kept=None if clean is None or initial is None else initial.kept(clean),
        step_arguments=step_arguments(scheduler, generator),
    )


def _set_timesteps(family: Family, scheduler: Any, steps: int, size: Size) -> None:
    try:
        family.set_timesteps(scheduler, steps, size)
    except (ValueError, IndexError):
        raise InvalidRequestError(f"This sampler cannot take {steps} steps: choose another number.") from None


def _seeds(request: ImageRequest, first: int, index: int) -> tuple[int, int | None]:
    """Seed of a picture's noise and of the noise that is blended in.

    Pictures differ by their own seed, or, where one picture is varied, by the seed of the variation.
    """
    sampling = request.sampling
    if sampling.variation_seed is None or sampling.variation_strength == 0.0:
        return first + index, None
    return first, sampling.variation_seed + index


def _skipped(family: Family, steps: int, strength: float) -> int:
    """Steps that are left out at the beginning, rounded as diffusers' pipelines of the family do."""
    if family.prediction == "flow_prediction":
        skipped = int(max(steps - min(steps * strength, steps), 0))
    else:
        skipped = steps - min(int(steps * strength), steps)
    return min(skipped, steps - 1)


def _begin_within(scheduler: Any, clean: Tensor, start: Tensor, skipped: int) -> tuple[Tensor, Tensor]:
    """Latents of an initial picture with noise, and the timesteps that are left.

    Source: Meng et al., "SDEdit", 2022.
    """
    first = skipped * scheduler.order
    timesteps = scheduler.timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return renoise(scheduler, clean, start, timesteps[0]), timesteps
