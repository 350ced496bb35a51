"""How the command line is called: the options that every command takes, and how every command ends."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hotfolder import workspace as workspaces
from hotfolder.errors import HotfolderError, JobError, SettingsError
from hotfolder.front.answer import Answer, ExitCode, exit_code_of, give
from hotfolder.workspace import Workspace

if TYPE_CHECKING:
    from hotfolder.settings import Settings


@dataclass
class Call:
    """What every command is told."""

    workspace_given: Path | None = None
    as_json: bool = False

    @property
    def workspace(self) -> Workspace:
        """The workspace that is meant.

        Raises:
            SettingsError: `no-workspace`.
        """
        return workspaces.find(self.workspace_given)

    @property
    def settings(self) -> "Settings":
        """The settings of the workspace.

        Raises:
            SettingsError: there is none, or its settings are wrong.
        """
        from hotfolder.settings import Settings

        return Settings.read(self.workspace.root)


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    call = ctx.ensure_object(Call)
    if value and param.name:
        setattr(call, param.name, value)


#: The options of all commands, shared by them: before the command's name they are the group's.
_EVERYWHERE: Final[list[click.Parameter]] = [
    click.Option(
        ["--workspace", "workspace_given"],
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        callback=_remember,
        expose_value=False,
        help="The workspace; else HOTFOLDER_WORKSPACE, else the current folder.",
    ),
    click.Option(
        ["--json", "as_json"],
        is_flag=True,
        callback=_remember,
        expose_value=False,
        help="Answer with one JSON object.",
    ),
]


class Command(click.Command):
    """A command that takes the options of all commands too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever click hands on
        super().__init__(*args, **kwargs)
        self.params += _EVERYWHERE


class Group(click.Group):
    """All commands, listed by what they are for."""

    command_class = Command

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:  # noqa: ANN401 - whatever click hands on
        super().__init__(*args, **kwargs)
        self.params += _EVERYWHERE
        self._sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands by what they are for."""
        for title, names in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=80)) for name in names])


def run(group: click.Group, args: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run one command, say how it ended, and return the exit code. NO_COLOR is kept (no-color.org)."""
    color = False if environ.get("NO_COLOR") else None
    as_json = "--json" in args
    with click.Context(group, color=color):
        try:
            answer = group.main(args=list(args), prog_name="hotfolder", standalone_mode=False, color=color)
            if not isinstance(answer, Answer):  # --help and --version have said all
                return int(answer or 0)
            give(answer, as_json=as_json)
            return answer.exit_code
        except BrokenPipeError:
            # Whoever read our output has had enough. Python would complain about it once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.BUG
        except Exception as error:  # noqa: BLE001 - the front door: nothing passes it untold
            return _failed(error, as_json=as_json)
        except KeyboardInterrupt:
            give(Answer(error=JobError("not-completed", "stopped by Ctrl-C")), as_json=as_json)
            return ExitCode.CANCELLED


def _failed(error: Exception, *, as_json: bool) -> ExitCode:
    """Say what went wrong, and return the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return ExitCode.USAGE
        case click.UsageError():
            hint = f"{error.ctx.command_path if error.ctx else 'hotfolder'} --help lists what is accepted"
            told: HotfolderError = JobError("bad-usage", error.format_message().rstrip("."), hint)
        case click.Abort():
            give(Answer(error=JobError("not-completed", "stopped by Ctrl-C")), as_json=as_json)
            return ExitCode.CANCELLED
        case HotfolderError():
            told = error
        case OSError():
            found = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            told = SettingsError("cannot-write", found, "look at the rights of the file and the room on its disk")
        case _:
            import traceback

            traceback.print_exception(error)
            told = HotfolderError("internal", f"{type(error).__name__}: {error}", "this is a bug of hotfolder")
            give(Answer(error=told), as_json=as_json)
            return ExitCode.BUG
    give(Answer(error=told), as_json=as_json)
    return exit_code_of(told)
