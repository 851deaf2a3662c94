from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from bots import cli
from generation.errors import ModelNotFoundError
from workers.errors import RedisUnavailableError, SettingsError

#: Whatever of these ``palaver --help`` imported would be felt at every call.
HEAVY = ["torch", "transformers", "rq", "redis", "rich", "pydantic", "httpx", "numpy", "asyncio"]


def modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys, json\nfrom bots import cli\n"
        f"try:\n    cli.main({list(arguments)!r})\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_imports_nothing_heavy():
    assert not modules_after("--help") & set(HEAVY)


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_no_command_imports_a_model_library(command):
    modules = modules_after(command, "--help")
    assert not modules & {"torch", "transformers", "diffusers"}


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    assert not done.value.code
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


def test_every_line_of_help_is_that_of_its_command():
    context = click.Context(cli.palaver)
    for name in cli.COMMANDS:
        command = cli.palaver.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_a_mistyped_command_is_answered_with_the_closest(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["chta"])
    assert done.value.code == cli.EXIT_USAGE
    assert "Did you mean chat?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SettingsError("x is no setting."), 78, "x is no setting."),
        (RedisUnavailableError("Redis cannot be\nreached."), 69, "Redis cannot be reached."),
        (ModelNotFoundError("There is no such model."), 66, "There is no such model."),
        (PermissionError(13, "Permission denied", "/there"), 74, "Permission denied (/there)."),
        (ZeroDivisionError("a secret"), 70, "internal error: ZeroDivisionError"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_error_is_one_line_and_a_code(monkeypatch, capsys, error, code, words):
    @click.command("chat")
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: failing)
    with pytest.raises(SystemExit) as done:
        cli.main(["chat"])
    assert done.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == (1 if words else 0)
    assert words in captured.err
    assert "a secret" not in captured.err


def test_a_broken_pipe_is_quiet():
    code = "from bots import cli\ncli.main(['--help'])"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert child.stdout
    assert child.stderr
    child.stdout.close()
    assert child.wait(timeout=60) == cli.EXIT_BROKEN_PIPE
    assert child.stderr.read() == b""
