"""The ``palaver`` command: a table of subcommands as strings, so that ``palaver --help`` imports none of them."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

import click

#: Name -> (where its ``click.Command`` is, the line that ``palaver --help`` shows).
COMMANDS = {
    "chat": ("bots.commands.chat:command", "Talk to the model; with a question or piped input, answer and exit."),
    "ask": ("bots.commands.ask:command", "Answer a question from documents, with its sources."),
    "knowledge": ("bots.commands.knowledge:command", "The documents that questions are answered from."),
    "imagine": ("bots.commands.imagine:command", "Draw pictures of a prompt, as files."),
    "demo": ("bots.commands.demo:command", "Start everything and show it at work."),
    "up": ("bots.commands.up:command", "Run server, workers and the configured front-ends as one process tree."),
    "down": ("bots.commands.down:command", "Stop what `palaver up` or `palaver chat --keep` left running."),
    "worker": ("bots.commands.worker:command", "Run workers for some kinds of model on some devices."),
    "discord": ("bots.commands.discord_bot:command", "Run the Discord front-end."),
    "evaluate": ("bots.commands.evaluate:command", "Measure the models: figures, and sheets for the eye."),
    "slack": ("bots.commands.slack_bot:command", "Run the Slack front-end: Socket Mode, or HTTP with --http."),
    "train": ("bots.commands.train:command", "Tune a chat model on a tenant's approved dialogues."),
    "adapters": ("bots.commands.adapters:command", "List, promote, roll back and remove tuned adapters."),
    "models": ("bots.commands.models:command", "List, pull, verify and remove models."),
    "usage": ("bots.commands.usage:command", "Show what a tenant and a user have used, and what is left."),
    "moderation": ("bots.commands.moderation:command", "What was decided, appeals, and checking a policy."),
    "verify": ("bots.commands.verify:command", "Tell whether a picture was generated here."),
    "status": ("bots.commands.status:command", "Show server, queues, workers and who waits."),
    "top": ("bots.commands.top:command", "Watch queues, workers, slots, tenants and throughput."),
    "jobs": ("bots.commands.jobs:command", "Look at a job, stop it, run it again."),
    "backup": ("bots.commands.backup:backup", "Write what is kept to a file."),
    "restore": ("bots.commands.backup:restore", "Read such a file back in."),
    "doctor": ("bots.commands.doctor:command", "Look for what may keep it from working here, with remedies."),
}

EXIT_USAGE = 2
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_log = logging.getLogger("palaver.cli")


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The table's names, in its order."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's own lines, so that help needs no import."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, with the closest name in the error."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]}?" if close else " See palaver --help."
            ctx.fail(f"There is no command {args[0]}.{hint}")
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="palaver", prog_name="palaver")
@click.option("--debug", is_flag=True, help="Log everything (never contents) and show tracebacks.")
def palaver(debug: bool) -> None:
    """Self-hosted chat and content generation for Discord and Slack."""
    del debug  # main() has looked for it: it must work when parsing itself fails


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: errors become one line on standard error and an exit code after sysexits.h."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        os.environ["PALAVER_LOG_LEVEL"] = "debug"
    try:
        # Not click's own main(): it turns a broken pipe into exit code 1.
        with palaver.make_context("palaver", arguments) as context:
            code = palaver.invoke(context)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (``palaver chat ... | head``): not an error, but nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the one place where every error becomes a line
        sys.exit(_report(error, debug))
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception, debug: bool) -> int:
    """Say what happened in one line; returns the exit code."""
    if debug:
        _log.exception("the command failed")
    from generation.errors import GenerationError
    from workers.errors import WorkersError

    if isinstance(error, WorkersError | GenerationError):
        click.echo(f"palaver: {' '.join(str(error).split())}", err=True)
        return getattr(error, "exit_code", EXIT_INTERNAL)
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        click.echo(f"palaver: {error.strerror}{place}.", err=True)
        return 74
    name = type(error).__name__
    click.echo(f"palaver: internal error: {name}. `palaver --debug ...` shows the details.", err=True)
    return EXIT_INTERNAL


if __name__ == "__main__":
    main()
