"""``palaver imagine``: pictures from a prompt, as files."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import click

from bots import log, settings
from bots.settings import Settings
from bots.terminal import picture_files
from bots.terminal.imagine import imagine_once
from bots.terminal.session import Asker, Session, local_user
from bots.terminal.stack import running_stack
from generation.errors import InvalidRequestError
from generation.types import MAX_IMAGES, MAX_STEPS, ImageSampling
from workers.artifacts import media_type_of
from workers.contract import ChatOptions, ImageOptions, Kind
from workers.errors import ArtifactError

_LARGEST_SEED = 2**63 - 1
_SIZE = re.compile(r"(\d{1,5})\s*[x\u00d7]\s*(\d{1,5})")
#: What the engine calls its numbers, and what they are called here.
_FLAGS = {
    "guidance_scale": "--guidance",
    "width_px and height_px": "--size's width and height",
    "width_px": "--size's width",
    "height_px": "--size's height",
    "aspect_ratio": "--ar",
    "variation_strength": "--variation-strength",
    "strength": "--strength",
    "upscale": "--upscale",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be drawn, and from what.

    Attributes:
        text: What the pictures show.
        negative_text: What they do not show.
        options: How they are drawn.
        init: Picture to begin from.
        mask: Picture that is white where the first one is drawn anew.
        enhance: Whether the chat model adds details first.
    """

    text: str
    negative_text: str
    options: ImageOptions
    init: bytes | None
    mask: bytes | None
    enhance: bool


@click.command("imagine")
@click.argument("prompt", nargs=-1)
@click.option("--n", type=int, default=1, show_default=True, help=f"How many pictures, 1 to {MAX_IMAGES}.")
@click.option("--ar", default="1:1", show_default=True, help="Width to height, for example 16:9.")
@click.option("--size", metavar="WxH", help="Exact size in pixels instead of --ar.")
@click.option("--seed", type=int, help="Makes pictures repeatable; each further picture has the next one.")
@click.option("--steps", type=int, help=f"Denoising steps, 1 to {MAX_STEPS}; the model's own number by default.")
@click.option("--sampler", help="ddim, ddpm, euler, euler_a, dpm++_2m, unipc or lcm; the model's own by default.")
@click.option("--guidance", type=float, help="How closely to follow the prompt, 0 to 30.")
@click.option("--negative", default="", help="What the pictures should not show.")
@click.option("--style", help="One of the model's styles.")
@click.option("--enhance/--no-enhance", help="Let the chat model add details to the prompt first.")
@click.option("--init", "init_file", type=click.Path(path_type=Path), help="Picture to begin from.")
@click.option("--mask", "mask_file", type=click.Path(path_type=Path), help="White where --init is drawn anew.")
@click.option("--strength", type=float, default=0.7, show_default=True, help="How much of --init is drawn anew.")
@click.option("--variation-seed", type=int, help="Blends in this seed's noise, for variations of one picture.")
@click.option("--variation-strength", type=float, default=0.0, help="How much of it, 0 to 1.")
@click.option("--upscale", type=int, default=1, show_default=True, help="Enlarge by 2 or 4; alone with --init as well.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), show_default="here", help="Directory for the pictures."
)
@click.option("--keep", is_flag=True, help="Leave server and workers running for the next call.")
@click.option("--tenant", default="terminal", show_default=True, help="On whose account: the unit of fair sharing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object a line: submitted, queued, progress, finished..."
)
@click.option("--follow", "job_id", metavar="JOB", help="Fetch the pictures of an earlier prompt instead.")
def command(
    prompt: tuple[str, ...],
    init_file: Path | None,
    mask_file: Path | None,
    enhance: bool,
    negative: str,
    out: Path,
    keep: bool,
    tenant: str,
    as_json: bool,
    job_id: str | None,
    **drawing: int | float | str | None,
) -> None:
    """Draw pictures of a PROMPT and write them to files, whose names go to standard output.

    Ctrl-C stops the drawing.
    """
    configured = settings.load()
    log.configure(configured.log_level)
    limit_bytes = configured.artifacts.max_bytes
    wish = Wish(
        " ".join(prompt).strip(),
        negative,
        _options(drawing),
        _picture(init_file, limit_bytes),
        _picture(mask_file, limit_bytes),
        enhance,
    )
    if job_id is None:
        _check(wish)
    picture_files.prepare(out)
    kinds: tuple[Kind, ...] = ("chat", "image") if enhance else ("image",)
    asker = Asker(tenant, local_user())
    with running_stack(configured, keep, kinds), asyncio.Runner() as runner:
        name = wish.text or (init_file.stem if init_file else "")
        runner.run(_imagine(configured, asker, wish, name, out, job_id, as_json))


async def _imagine(
    configured: Settings, asker: Asker, wish: Wish, name: str, out: Path, job_id: str | None, as_json: bool
) -> None:
    async with Session(configured, asker, ChatOptions()) as session:
        if job_id is not None:
            drawing = session.drawn_before(job_id)
        else:
            drawing = await session.imagine(
                wish.text, wish.options, wish.negative_text, wish.init, wish.mask, wish.enhance
            )
        await imagine_once(session, drawing, name, out, as_json)


def _options(given: dict[str, int | float | str | None]) -> ImageOptions:
    """What was asked for, refused with the flag that is wrong."""
    width_px, height_px = _size(given["size"])
    if given["steps"] is not None and not 1 <= int(given["steps"]) <= MAX_STEPS:  # 0 is the engine's word for its own
        raise InvalidRequestError(f"--steps must be between 1 and {MAX_STEPS}, not {given['steps']}.")
    for name in ("seed", "variation_seed"):
        seed = given[name]
        if seed is not None and not 0 <= int(seed) <= _LARGEST_SEED:
            raise InvalidRequestError(f"--{name.replace('_', '-')} must be between 0 and {_LARGEST_SEED}, not {seed}.")
    fields = {
        "n": given["n"],
        "aspect_ratio": given["ar"],
        "width_px": width_px,
        "height_px": height_px,
        "num_inference_steps": given["steps"] or 0,
        "guidance_scale": given["guidance"],
        "sampler": given["sampler"],
        "seed": given["seed"],
        "strength": given["strength"],
        "variation_seed": given["variation_seed"],
        "variation_strength": given["variation_strength"],
        "style": given["style"],
        "upscale": given["upscale"],
    }
    try:
        ImageSampling(**fields)  # type: ignore[arg-type]  # it checks what the engine would refuse
    except InvalidRequestError as error:
        text = str(error)
        for name, flag in _FLAGS.items():
            text = re.sub(rf"^{name}\b", flag, text)
        raise InvalidRequestError(re.sub(r"^n\b", "--n", text)) from None
    return ImageOptions.model_validate(fields)


def _size(text: object) -> tuple[int, int]:
    if text is None:
        return 0, 0
    match = _SIZE.fullmatch(str(text).strip().lower())
    if not match or not int(match[1]) or not int(match[2]):
        raise InvalidRequestError(f"--size must look like 512x384, not {str(text)[:20]}.")
    return int(match[1]), int(match[2])


def _picture(file: Path | None, limit_bytes: int) -> bytes | None:
    if file is None:
        return None
    data = picture_files.read(file, limit_bytes)
    try:
        media_type_of(data)
    except ArtifactError:
        raise ArtifactError(f"{file} is no picture that can be used; take a PNG, JPEG or WebP.") from None
    return data


def _check(wish: Wish) -> None:
    if not wish.text and not (wish.init and wish.options.upscale > 1):
        raise InvalidRequestError('There is no prompt: say what to draw, for example "a red fox in the snow".')
    if wish.mask and not wish.init:
        raise InvalidRequestError("--mask needs the picture that it belongs to, with --init.")
