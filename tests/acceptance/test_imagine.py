"""``palaver imagine`` as people and scripts use it: real processes, a real server, a real image engine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.homes import DEADLINE_S, Home, assert_one_line, at_terminal, lines_of, new_home, wait_for

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

LONG = ("--n", "8", "--steps", "200", "a lighthouse")


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """An image worker that a first call has left running; one picture at a time, so that there is time to interfere."""
    # All of these tests are one user, and a quick machine asks more of them in a minute than one may.
    unlimited = {"PALAVER_LIMITS__IMAGE__USER__BURST": "0", "PALAVER_LIMITS__IMAGE__CHANNEL__BURST": "0"}
    with new_home(PALAVER_IMAGE__ROWS="1", **unlimited) as home:
        first = home.run("imagine", "--keep", "--steps", "2", "--out", str(home.directory / "first"), "a fox")
        assert first.returncode == 0, first.stderr
        assert "loading" in first.stderr
        yield home


def files(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def first_progress(process: subprocess.Popen[str]) -> str:
    """Read until something is being drawn; returns the job's id."""
    assert process.stdout
    for line in process.stdout:
        told = json.loads(line)
        if told["type"] == "progress":
            return told["job_id"]
    raise AssertionError(process.stderr.read() if process.stderr else "it ended")


def test_pictures_become_files_named_after_prompt_and_seed(home, tmp_path):
    done = home.run("imagine", "--n", "2", "--seed", "7", "--steps", "3", "--out", str(tmp_path), "a red", "fox")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "a-red-fox-7.png"), str(tmp_path / "a-red-fox-8.png")]
    assert files(tmp_path) == ["a-red-fox-7.png", "a-red-fox-8.png"]
    before = (tmp_path / "a-red-fox-8.png").read_bytes()
    with Image.open(io.BytesIO(before)) as picture:
        assert picture.format == "PNG"
    again = home.run("imagine", "--seed", "8", "--steps", "3", "--out", str(tmp_path), "a red fox")
    assert again.stdout.strip() == str(tmp_path / "a-red-fox-8.png"), "the same picture from its seed alone"
    assert files(tmp_path) == ["a-red-fox-7.png", "a-red-fox-8.png"]


def test_json_tells_everything_once(home, tmp_path):
    done = home.run("imagine", "--json", "--steps", "5", "--out", str(tmp_path), "a fox")
    told = lines_of(done)
    assert [told[0]["type"], told[-1]["type"]] == ["submitted", "finished"]
    steps = [line["step"] for line in told if line["type"] == "progress"]
    assert steps == sorted(set(steps))
    (file,) = told[-1]["files"]
    assert Path(file["path"]).is_file()
    assert told[-1]["usage"]["image_steps"] == 5
    assert told[-1]["usage"]["gpu_s"] > 0


def test_a_picture_to_begin_from_and_an_enlargement(home, tmp_path):
    init = tmp_path / "init.png"
    Image.new("RGB", (40, 40), "red").save(init)
    mask = tmp_path / "mask.png"
    Image.new("L", (40, 40), 255).save(mask)
    out = tmp_path / "out"
    pictures = ("--init", str(init), "--mask", str(mask), "--strength", "0.5")
    drawn = home.run("imagine", *pictures, "--steps", "4", "--out", str(out), "fox")
    assert drawn.returncode == 0, drawn.stderr
    enlarged = home.run("imagine", "--init", str(init), "--upscale", "2", "--out", str(out))
    assert enlarged.returncode == 0, enlarged.stderr
    with Image.open(enlarged.stdout.strip()) as picture:
        assert picture.size == (80, 80)


def test_the_chat_model_adds_details_on_demand(home, tmp_path):
    """The chat worker is started for it, in the tree that runs already."""
    done = home.run(
        "imagine", "--enhance", "--json", "--seed", "7", "--steps", "2", "--out", str(tmp_path), "a red fox"
    )
    assert done.returncode == 0, done.stderr
    (enhanced,) = [line["prompt"] for line in lines_of(done) if line["type"] == "enhanced"]
    assert "red fox" in enhanced.lower()
    assert len(enhanced) > len("a red fox")
    assert lines_of(done)[-1]["type"] == "finished"
    assert {worker["kind"] for worker in home.status()["workers"]} == {"chat", "image"}


def test_at_a_terminal_bar_and_preview_are_shown(home, tmp_path):
    with at_terminal(home, "imagine", "--steps", "60", "--n", "2", "--out", str(tmp_path), "a fox") as terminal:
        terminal.until(r"step \d+ of 60")
        terminal.until("▀")
        terminal.until(r"a-fox-\d+\.png")
        terminal.until(r"2 pictures of \d+ x \d+ px")
    assert len(files(tmp_path)) == 2


def test_ctrl_c_stops_the_drawing_and_leaves_no_file(home, tmp_path):
    drawing = home.start("imagine", "--json", "--out", str(tmp_path), *LONG)
    job_id = first_progress(drawing)
    drawing.send_signal(signal.SIGINT)
    out, err = drawing.communicate(timeout=DEADLINE_S)
    assert drawing.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["type"] == "cancelled"
    assert files(tmp_path) == []
    again = home.run("imagine", "--json", "--follow", job_id, "--out", str(tmp_path))
    assert (again.returncode, lines_of(again)[-1]["type"]) == (130, "cancelled")
    wait_for(lambda: not any(worker["in_flight"] for worker in home.status()["workers"]))


def test_a_killed_front_end_loses_nothing(home, tmp_path):
    drawing = home.start("imagine", "--json", "--steps", "40", "--out", str(tmp_path), "a fox")
    job_id = first_progress(drawing)
    drawing.kill()
    drawing.wait()
    again = home.run("imagine", "--follow", job_id, "--out", str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [str(tmp_path / name) for name in files(tmp_path)]


@pytest.mark.kill
def test_a_killed_worker_still_draws_once(home, tmp_path):
    drawing = home.start("imagine", "--json", "--n", "4", "--steps", "60", "--out", str(tmp_path), "a fox")
    first_progress(drawing)
    for worker in home.status()["workers"]:
        if worker["kind"] == "image":
            os.kill(worker["pid"], signal.SIGKILL)
    out, err = drawing.communicate(timeout=DEADLINE_S)
    assert drawing.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    assert [line["type"] for line in told if line["type"] in ("finished", "failed", "cancelled")] == ["finished"]
    assert len(files(tmp_path)) == 4


# What goes wrong is said in one line, and nothing is left behind


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--steps", "500", "fox"), 65, ("--steps", "200")),
        (("--size", "100x70", "fox"), 65, ("100x70",)),
        (("--sampler", "plms", "fox"), 65, ("plms", "ddim")),
        (("--style", "baroque", "fox"), 65, ("baroque",)),
        (("--init", "broken.png", "fox"), 65, ("initial picture",)),
        (("--init", "bomb.png", "fox"), 65, ("million pixels",)),
        (("--init", "notes.png", "fox"), 65, ("notes.png", "PNG")),
        (("--init", "none.png", "fox"), 74, ("none.png",)),
        (("--mask", "bomb.png", "fox"), 65, ("--init",)),
        ((), 65, ("no prompt",)),
    ],
)
def test_one_line(home, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    Path("notes.png").write_text("no picture")
    Image.new("1", (30_000, 30_000)).save("bomb.png")
    before = files(tmp_path)
    home.extra["PYTHONPATH"] = os.environ.get("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    done = home.run("imagine", *arguments)
    assert_one_line(done, code, *words)
    assert files(tmp_path) == before


def test_a_model_that_does_not_exist(tmp_path):
    with new_home(PALAVER_IMAGE__MODEL="/no/such/model") as home:
        done = home.run("imagine", "--out", str(tmp_path), "a fox")
        assert_one_line(done, 66, "/no/such/model")
        wait_for(lambda: home.processes() == [])
    assert files(tmp_path) == []


def test_redis_away(tmp_path):
    with new_home(REDIS_URL="redis://127.0.0.1:1/0") as home:
        assert_one_line(home.run("imagine", "--out", str(tmp_path), "fox"), 69, "127.0.0.1:1", "REDIS_URL")
