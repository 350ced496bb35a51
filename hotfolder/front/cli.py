"""The command line: each command, its options, and what it is for. What it does stands in the modules beside."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from hotfolder import __version__
from hotfolder.errors import JobError, SettingsError
from hotfolder.front import call as calls
from hotfolder.front.answer import Answer, ExitCode
from hotfolder.front.call import Call, Group

if TYPE_CHECKING:
    import threading

    from hotfolder.front.draft import Wanted
    from hotfolder.front.submit import ServeOne

_SECTIONS: Final = {
    "Make pictures": ("init", "serve", "run", "submit", "replay", "rerun", "check"),
    "See what happens": ("status", "history", "logs", "presets", "pipelines", "schedule", "doctor", "schema"),
    "Steer jobs": ("cancel", "resume", "pause", "first", "use"),
}


def main() -> NoReturn:
    """Run the command line of this process."""
    sys.exit(calls.run(cli, sys.argv[1:]))


@click.group(
    cls=Group, sections=_SECTIONS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """A folder that is an image studio: drop a job file, get pictures.

    Whatever a command does, it does by dropping files into jobs_inbox/ and reading them under outputs/: cp, mv and an
    editor can do the same.
    """


_F = TypeVar("_F", bound=Callable[..., object])
_JOB: Final = click.argument("job", metavar="JOB")
_WAIT: Final = click.option("--wait", is_flag=True, help="Follow the job to its end.")


def _job_options(function: _F) -> _F:
    """Add what `run` and `submit` make a job of."""
    file = click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True)
    for option in reversed(
        (
            click.argument("file", metavar="[JOB.toml]", required=False, type=file),
            click.option("--prompt", metavar="TEXT", help="What the picture shows."),
            click.option("--preset", metavar="NAME", help="Which model and settings: hotfolder presets lists them."),
            click.option("--seed", type=int, metavar="N", help="The same seed makes the same picture."),
            click.option("--image", metavar="FILE", help="A picture to start from."),
            click.option(
                "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other key, such as --set count=4."
            ),
            click.option(
                "--name",
                metavar="NAME",
                help="What the job is called; else the file's name, or the prompt's first words.",
            ),
        )
    ):
        function = option(function)
    return function


def _wanted(options: dict[str, Any]) -> "Wanted":
    from hotfolder.front import draft, submit

    file, text = submit.read_input(options["file"])
    named = {key: options[key] for key in ("prompt", "preset", "seed", "image") if options[key] is not None}
    keys = dict(draft.parse_setting(one) for one in options["settings"]) | named
    if options["file"] is None and not keys:
        raise JobError(
            "bad-usage", "there is nothing to make: a JOB.toml or --prompt is needed", 'such as --prompt "a red mug"'
        )
    return draft.Wanted(file=file, text=text, keys=keys, name=options["name"])


@cli.command()
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.pass_obj
def init(call: Call, folder: Path | None) -> Answer:
    """Make a folder a workspace; overwrites nothing."""
    from hotfolder.front import begin

    return begin.init(folder or call.workspace_given or Path.cwd())


@cli.command()
@click.option("--drain", is_flag=True, help="End when nothing is left that can go on by itself.")
@click.pass_obj
def serve(call: Call, drain: bool) -> Answer:
    """Run the daemon: take jobs from the inbox until told to stop."""
    from hotfolder import daemon

    settings = call.settings
    code = daemon.serve(settings, drain=drain)
    if code in {ExitCode.DONE, ExitCode.BUG}:
        error = (
            SettingsError("internal", "the process must be started again: its GPU thread cannot go on")
            if code
            else None
        )
        return Answer(error=error, exit_code=ExitCode(code))
    return Answer(
        error=JobError("not-completed", "not every job was completed", "hotfolder history shows them"),
        exit_code=ExitCode(code),
    )


@cli.command("run")
@_job_options
@click.pass_obj
def run_(call: Call, /, **options: Any) -> Answer:  # noqa: ANN401 - parsed by click
    """Make a job now and show its progress.

    It runs in this process; where a daemon has the workspace, at the front of its line.
    """
    from hotfolder.front import submit

    return submit.run(call.workspace, _wanted(options), _serve_one(call), as_json=call.as_json)


def _serve_one(call: Call) -> "ServeOne":
    """Return what serves one job in this process."""

    def serve_one(name: str, stop: "threading.Event") -> int:
        from hotfolder import daemon

        # What is worth telling stands in the job's status, and the log in its folder.
        with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
            return daemon.serve(call.settings, only=name, stop=stop, log_to=nowhere)

    return serve_one


@cli.command()
@_job_options
@_WAIT
@click.pass_obj
def submit(call: Call, /, wait: bool, **options: Any) -> Answer:  # noqa: ANN401 - parsed by click
    """Drop a job into the inbox, for the daemon."""
    from hotfolder.front import submit as submit_

    return submit_.submit(call.workspace, _wanted(options), wait=wait, as_json=call.as_json)


@cli.command()
@click.argument("picture", metavar="PICTURE|SIDECAR", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--verify", is_flag=True, help="Make it now, and say whether it is identical; if not, why.")
@_WAIT
@click.pass_obj
def replay(call: Call, picture: Path, verify: bool, wait: bool) -> Answer:
    """Make a picture again, by its sidecar or by what it says itself."""
    from hotfolder.front import replay as replay_

    if verify:
        return replay_.verify(call.workspace, picture, _serve_one(call), as_json=call.as_json)
    return replay_.replay(call.workspace, picture, wait=wait, as_json=call.as_json)


@cli.command()
@click.argument("job", metavar="[JOB]", required=False)
@_WAIT
@click.pass_obj
def rerun(call: Call, job: str | None, wait: bool) -> Answer:
    """Repeat a job exactly, with no name the last one."""
    from hotfolder.front import replay

    return replay.rerun(call.workspace, job, wait=wait, as_json=call.as_json)


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.pass_obj
def check(call: Call, files: tuple[Path, ...]) -> Answer:
    """Say all that is wrong with job files, or how much they are; runs nothing."""
    from hotfolder.front import checking

    return checking.check(call.workspace_given, files)


@cli.command()
@click.argument("job", metavar="[JOB]", required=False)
@click.option(
    "--watch", is_flag=True, help="Show it again and again: a job until it has ended, the daemon until Ctrl-C."
)
@click.pass_obj
def status(call: Call, job: str | None, watch: bool) -> Answer:
    """Show a job, or with no name the daemon at a glance."""
    from hotfolder.front import glance

    return (
        glance.job(call.workspace, job, watch=watch, as_json=call.as_json)
        if job
        else glance.daemon(call.workspace, watch=watch, as_json=call.as_json)
    )


@cli.command()
@click.option(
    "-n", "--count", default=20, show_default=True, type=click.IntRange(1, 100_000), metavar="N", help="How many."
)
@click.pass_obj
def history(call: Call, count: int) -> Answer:
    """List the jobs that ended last."""
    from hotfolder.front import tables

    return tables.history(call.settings, count)


@cli.command()
@_JOB
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.pass_obj
def logs(call: Call, job: str, follow: bool) -> Answer:
    """Show what happened to a job, line by line."""
    from hotfolder.front import glance

    return glance.log(call.workspace, job, follow=follow, as_json=call.as_json)


@cli.command()
@click.argument("show", metavar="[show NAME]", nargs=-1)
@click.pass_obj
def presets(call: Call, show: tuple[str, ...]) -> Answer:
    """List the presets; with `show NAME` where each value of one comes from."""
    from hotfolder.front import tables

    match show:
        case ():
            return tables.presets(call.settings)
        case ("show", name) | (name,) if name != "show":
            return tables.preset(call.settings, name)
        case _:
            raise JobError(
                "bad-usage", "presets takes nothing, or: show NAME", "such as hotfolder presets show flux-dev"
            )


@cli.command()
@click.argument("show", metavar="[show NAME]", nargs=-1)
@click.pass_obj
def pipelines(call: Call, show: tuple[str, ...]) -> Answer:
    """List the pipelines; with `show NAME` what each stage of one does and needs."""
    from hotfolder.front import pipelines as pipelines_

    match show:
        case ():
            return pipelines_.listing(call.settings)
        case ("show", name) | (name,) if name != "show":
            return pipelines_.one(call.settings, name)
        case _:
            raise JobError(
                "bad-usage", "pipelines takes nothing, or: show NAME", "such as hotfolder pipelines show generate"
            )


@cli.command()
@click.pass_obj
def schedule(call: Call) -> Answer:
    """List what runs by the clock: when next, and what came of it last."""
    from hotfolder.front import tables

    return tables.schedule(call.settings)


@cli.command()
@click.pass_obj
def doctor(call: Call) -> Answer:
    """Look at what this machine has: GPU, disk, models, mounts, limits."""
    from hotfolder.front import doctor as doctor_

    return doctor_.report(call.settings, as_json=call.as_json)


@cli.command()
def schema() -> Answer:
    """Print the JSON Schema of a job file, for editors."""
    import json

    from hotfolder import advice

    found = advice.schema()
    return Answer(data=found, text=json.dumps(found, indent=2, ensure_ascii=False))


@cli.command()
@_JOB
@click.option("--wait", is_flag=True, help="Return once it has ended.")
@click.pass_obj
def cancel(call: Call, job: str, wait: bool) -> Answer:
    """Stop a job within a step: one take, or every live take of a name."""
    from hotfolder.front import steer

    return steer.cancel(call.workspace, job, wait=wait)


@cli.command()
@click.argument("job", metavar="[JOB]", required=False)
@click.option("--from", "from_", metavar="STAGE", help="Begin again at this stage, by its number or name.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="stage.NAME.KEY=VALUE",
    help="Change a key of a stage that is still to come, or comes again with --from.",
)
@click.option("--pick", multiple=True, type=int, metavar="N", help="In review: a candidate that goes on.")
@click.option("--picks", metavar="N,N...", help="In review: all candidates that go on.")
@click.option("--force", is_flag=True, help="Also where a picture it was made with has changed.")
@_WAIT
@click.pass_obj
def resume(call: Call, /, job: str | None, wait: bool, **options: Any) -> Answer:  # noqa: ANN401 - parsed by click
    """Go on with a stopped job; with no name lift the pause.

    One that is held, in review, failed, cancelled or partial goes on; what is finished stays.
    """
    from hotfolder.front import resume as resume_
    from hotfolder.front import steer

    wish = resume_.read(
        options["pick"], options["picks"], options["from_"], options["settings"], force=options["force"]
    )
    if job is not None:
        return steer.resume(call.workspace, job, wish, wait=wait, as_json=call.as_json)
    if wish != resume_.Wish():
        raise JobError("bad-usage", "which job? the options of resume are for one", "hotfolder resume JOB --from ...")
    return steer.lift(call.workspace)


@cli.command()
@click.argument("job", metavar="[JOB]", required=False)
@click.pass_obj
def pause(call: Call, job: str | None) -> Answer:
    """Hold a job; with no name let nothing new begin at all."""
    from hotfolder.front import steer

    return steer.pause(call.workspace, job)


@cli.command()
@_JOB
@click.pass_obj
def first(call: Call, job: str) -> Answer:
    """Put a job in front of the line."""
    from hotfolder.front import steer

    return steer.first(call.workspace, job)


@cli.command()
@_JOB
@click.option("--take", type=click.IntRange(1), metavar="N", help="Of this take; else of the newest.")
@click.option("--picture", type=click.IntRange(1), metavar="M", help="This candidate; else the first.")
@click.pass_obj
def use(call: Call, job: str, take: int | None, picture: int | None) -> Answer:
    """Say which picture of a job @NAME means; with no option the newest again."""
    from hotfolder.front import use as use_

    return use_.use(call.workspace, job, take=take, picture=picture)
