from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from rich.segment import Segment

from bots.commands import imagine as command
from bots.cost import image_cost_gpu_s
from bots.service import Enhanced
from bots.terminal import imagine, picture_files, picture_view
from bots.terminal.answer import AnswerError
from bots.terminal.drawing import Drawing
from bots.terminal.gallery import sheet_of
from bots.terminal.picture_files import FileError, PictureFile
from generation.errors import InvalidRequestError
from tests import image_engine
from workers.client import Ended, ImageProgress, Queued, Restarted
from workers.contract import ArtifactRef, Event, Failure, ImageBody, ReplyTo, UsageReport
from workers.errors import ArtifactError

RED = image_engine.png(b"\xff\0\0", 8)
BLUE = image_engine.png(b"\0\0\xff", 8)


def ended(kind: str = "finished", pictures: int = 2, **changes: object) -> Ended:
    images = tuple(
        ArtifactRef(artifact_id=f"e1-{n}", media_type="image/png", width_px=8, height_px=8, size_bytes=9, seed=7 + n)
        for n in range(pictures if kind == "finished" else 0)
    )
    fields = {"type": kind, "job_id": "t__1", "reply": ReplyTo(front_end="terminal"), "at_s": 1.0, "images": images}
    return Ended(Event.model_validate(fields | {"usage": UsageReport(image_steps=8)} | changes))


class Told:
    """A session whose job tells what the test says, as ``follow`` of a real one would."""

    def __init__(self, *updates: object) -> None:
        self.updates = updates

    async def follow(self, drawing: Drawing):
        for update in self.updates:
            drawing.take(update)
            yield drawing

    async def artifact(self, artifact_id: str) -> bytes:
        return RED if artifact_id.endswith("0") else BLUE


def test_a_drawing_comes_to_its_end():
    drawing = Drawing("t__1")
    assert drawing.status() == "starting"
    drawing.take(Queued(3, 7.6))
    assert drawing.status() == "3 before this one, about 8 s"
    drawing.take(Enhanced("a red fox, snow"))
    drawing.take(ImageProgress(1, 4, RED))
    drawing.take(ImageProgress(2, 4))
    assert (drawing.status(), drawing.preview, drawing.queued) == ("drawing", RED, None)
    assert drawing.first_preview_s is not None
    drawing.take(Restarted())
    assert (drawing.step, drawing.preview, drawing.enhanced) == (0, None, "a red fox, snow")
    drawing.take(ImageProgress(4, 4))
    assert drawing.status() == "finishing"
    drawing.take(ended())
    assert drawing.status().startswith("2 pictures of 8 x 8 px in ")
    assert drawing.usage.image_steps == 8


@pytest.mark.parametrize(("kind", "status"), [("cancelled", "stopped"), ("failed", "failed"), ("refused", "refused")])
def test_how_a_drawing_ends(kind, status):
    drawing = Drawing("t__1")
    drawing.take(ended(kind))
    assert drawing.status() == status


# Files


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red fox, in the snow!", "a-red-fox-in-the-snow-7"),
        ("红色的心", "红色的心-7"),
        ("../../etc/passwd", "etc-passwd-7"),
        ("!?", "picture-7"),
        ("x" * 90, "x" * 40 + "-7"),
    ],
)
def test_names_are_safe_and_say_what_is_shown(prompt, name):
    assert picture_files.name_of(prompt, 7) == name


def test_no_picture_is_ever_overwritten(tmp_path: Path):
    red, blue = (PictureFile("fox-7", "image/png", data) for data in (RED, BLUE))
    assert picture_files.write(tmp_path, [red, blue]) == [tmp_path / "fox-7.png", tmp_path / "fox-7-2.png"]
    assert picture_files.write(tmp_path, [blue, red]) == [tmp_path / "fox-7-2.png", tmp_path / "fox-7.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fox-7-2.png", "fox-7.png"]
    assert (tmp_path / "fox-7.png").read_bytes() == RED


def test_all_files_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "kept-1.png").write_bytes(RED)
    pictures = [PictureFile("kept-1", "image/png", RED), PictureFile("fox-7", "image/png", RED)]
    real = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if data == BLUE:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(FileError, match="No space left"):
        picture_files.write(tmp_path, [*pictures, PictureFile("fox-8", "image/png", BLUE)])
    assert [file.name for file in tmp_path.iterdir()] == ["kept-1.png"]


def test_a_place_that_cannot_be_written_is_told_before_anything_is_drawn(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="--out"):
        picture_files.prepare(tmp_path / "file" / "below")
    picture_files.prepare(tmp_path / "new" / "below")
    assert (tmp_path / "new" / "below").is_dir()


def test_files_that_are_too_large_are_not_read(tmp_path: Path):
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    with pytest.raises(FileError, match="1 MiB"):
        picture_files.read(tmp_path / "large", 2**20)
    with pytest.raises(FileError, match="No such file"):
        picture_files.read(tmp_path / "none", 2**20)


# In the terminal


@pytest.mark.parametrize(
    ("environment", "how"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color"}, ""),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, ""),
    ],
)
def test_how_a_terminal_takes_pictures(environment, how):
    assert picture_view.protocol(environment) == how


def test_a_picture_for_kitty_comes_in_pieces_that_make_it_whole():
    data = RED + bytes(9_000)
    text = picture_view.escape_sequence(data, "kitty")
    pieces = [piece.removeprefix("\x1b_G").partition(";") for piece in text.split("\x1b\\")[:-1]]
    assert [control[-3:] for control, _, _ in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    assert len(pieces) > 1
    assert base64.b64decode("".join(payload for _, _, payload in pieces)) == data
    assert max(len(payload) for _, _, payload in pieces) <= 4_096


def test_a_picture_for_iterm():
    text = picture_view.escape_sequence(RED, "iterm")
    assert text.startswith("\x1b]1337;File=inline=1;")
    assert base64.b64decode(text.rpartition(":")[2].removesuffix("\a")) == RED


def test_half_blocks_have_two_pixels_to_a_cell():
    picture = Image.new("RGB", (4, 4), "red")
    picture.paste((0, 0, 255), (0, 2, 4, 4))
    file = io.BytesIO()
    picture.save(file, "PNG")
    blocks = picture_view.half_blocks(file.getvalue(), columns=2, rows=1)
    assert blocks is not None
    cells = [segment for segment in blocks.segments if segment.text == "▀"]
    assert len(cells) == 2
    assert [str(cell.style) for cell in cells] == ["rgb(255,0,0) on rgb(0,0,255)"] * 2
    assert blocks.segments[-1] == Segment.line()
    assert picture_view.half_blocks(b"no picture") is None


def test_nothing_is_shown_where_there_are_no_colours():
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None)
    picture_view.show(console, RED)
    picture_view.show(Console(file=io.StringIO()), RED)
    assert console.file.getvalue() == ""
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    picture_view.show(console, RED)
    assert "▀" in console.file.getvalue() or "\x1b_G" in console.file.getvalue()


def test_the_view_shows_bar_preview_and_the_better_prompt():
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=100, height=30)
    drawing = Drawing("t__1")
    drawing.take(Enhanced("a red fox, \x1b[31msnow"))
    drawing.take(ImageProgress(3, 16, RED))
    console.print(imagine._view(drawing, console))
    shown = console.file.getvalue()
    assert "step 3 of 16" in shown
    assert "▀" in shown
    assert "\x1b[31msnow" not in shown, "a model's text never steers the terminal"


# One call


async def test_names_of_files_alone_go_to_standard_output(tmp_path, capsys):
    session = Told(ImageProgress(1, 2), ImageProgress(2, 2), ended())
    await imagine.imagine_once(session, Drawing("t__1"), "a fox", tmp_path, as_json=False)
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "a-fox-7.png"), str(tmp_path / "a-fox-8.png")]
    assert err.splitlines() == ["palaver: drawing", "palaver: finishing"]
    assert [(tmp_path / f"a-fox-{seed}.png").read_bytes() for seed in (7, 8)] == [RED, BLUE]


async def test_json_tells_everything_once(tmp_path, capsys):
    updates = (Queued(2), Enhanced("a fox, snow"), ImageProgress(1, 2, RED), Restarted(), ImageProgress(1, 2), ended())
    await imagine.imagine_once(Told(*updates), Drawing("t__1"), "a fox", tmp_path, as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in told] == [
        "submitted", "queued", "enhanced", "progress", "restarted", "progress", "finished",
    ]  # fmt: skip
    assert told[-1]["files"][0] == {"path": str(tmp_path / "a-fox-7.png"), "seed": 7, "width_px": 8, "height_px": 8}


@pytest.mark.parametrize(("kind", "code", "exit_code"), [("failed", "invalid_request", 65), ("failed", "x", 70)])
async def test_no_pictures_no_files(tmp_path, capsys, kind, code, exit_code):
    failure = Failure(code=code, message="It did not work.")
    with pytest.raises(AnswerError, match="It did not work") as caught:
        await imagine.imagine_once(
            Told(ended(kind, failure=failure)), Drawing("t__1"), "a fox", tmp_path, as_json=False
        )
    assert caught.value.exit_code == exit_code
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


async def test_a_stopped_drawing_leaves_no_files(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        await imagine.imagine_once(Told(ended("cancelled")), Drawing("t__1"), "a fox", tmp_path, as_json=False)
    assert list(tmp_path.iterdir()) == []


# What is asked for

DEFAULTS: dict[str, object] = {
    "n": 1, "ar": "1:1", "size": None, "seed": None, "steps": None, "sampler": None, "guidance": None, "style": None,
    "strength": 0.7, "variation_seed": None, "variation_strength": 0.0, "upscale": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 500}, "--steps must be between 1 and 200, not 500."),
        ({"steps": 0}, "--steps must be between 1 and 200, not 0."),
        ({"n": 9}, "--n must be between 1 and 8, not 9."),
        ({"ar": "9:1"}, "--ar must be between 1:4 and 4:1."),
        ({"ar": "wide"}, "--ar must look like 16:9, not 'wide'."),
        ({"size": "9000x100"}, "--size's width must be between 0 and 8192, not 9000."),
        ({"size": "0x0"}, "--size must look like 512x384, not 0x0."),
        ({"guidance": 99.0}, "--guidance must be between 0 and 30, not 99."),
        ({"guidance": float("nan")}, "--guidance must be between 0 and 30, not nan."),
        ({"strength": 0.0}, "--strength must be between 0.01 and 1, not 0."),
        ({"upscale": 3}, "--upscale must be 1, 2 or 4, not 3."),
        ({"seed": -1}, "--seed must be between 0 and 9223372036854775807, not -1."),
        ({"variation_seed": 2**63}, f"--variation-seed must be between 0 and {2**63 - 1}, not {2**63}."),
    ],
)
def test_what_cannot_be_drawn_is_told_by_its_flag(given, words):
    with pytest.raises(InvalidRequestError) as caught:
        command._options(DEFAULTS | given)
    assert str(caught.value) == words


def test_what_can_be_drawn():
    options = command._options(DEFAULTS | {"size": "512 X 384", "steps": 16, "seed": 7, "sampler": "ddim"})
    assert (options.width_px, options.height_px, options.num_inference_steps, options.seed) == (512, 384, 16, 7)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(ArtifactError, match=r"notes\.png"):
        command._picture(tmp_path / "notes.png", 1_000)


def test_the_estimate_grows_with_size_steps_and_number():
    def cost_gpu_s(task: str = "generate", **options: object) -> float:
        return image_cost_gpu_s(ImageBody.model_validate({"kind": "image", "task": task, "options": options}))

    usual = cost_gpu_s()
    assert cost_gpu_s(n=4) == pytest.approx(4 * usual)
    assert cost_gpu_s(num_inference_steps=40) == pytest.approx(2 * usual)
    assert cost_gpu_s(width_px=1024, height_px=1024) == pytest.approx(4 * usual)
    assert usual < cost_gpu_s(upscale=4) < 10 * usual
    assert (
        0 < cost_gpu_s("upscale") <= cost_gpu_s(n=8, width_px=8192, height_px=8192, num_inference_steps=200) <= 86_400
    )


def test_a_sheet_holds_all_pictures():
    with Image.open(io.BytesIO(sheet_of([RED, BLUE, RED]))) as sheet:
        assert sheet.size == (40, 40)
        assert [sheet.getpixel(place) for place in ((12, 12), (28, 12), (12, 28), (28, 28))] == [
            (255, 0, 0), (0, 0, 255), (255, 0, 0), (255, 255, 255),
        ]  # fmt: skip
