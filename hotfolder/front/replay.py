"""`replay` and `rerun`: the same picture, or the same job, again; and whether the picture came out the same."""

from pathlib import Path
from typing import Any, Final

import click

from hotfolder import compare, outputs, record
from hotfolder.compare import Difference, Verdict
from hotfolder.errors import JobError
from hotfolder.front import jobs, submit
from hotfolder.front.answer import Answer, ExitCode
from hotfolder.front.draft import Wanted
from hotfolder.front.show import where
from hotfolder.front.submit import ServeOne
from hotfolder.names import shown
from hotfolder.record import Record
from hotfolder.workspace import Workspace

#: Characters of a hash that are enough to see that two differ.
_SHORT: Final = 12
_HASH_LENGTH: Final = 64


def replay(workspace: Workspace, given: Path, *, wait: bool, as_json: bool) -> Answer:
    """Drop what a picture or its sidecar says as a job, for the daemon.

    Raises:
        HotfolderError: it does not say how it was made, or that cannot be made here.
    """
    wanted, _ = _read(given)
    return submit.submit(workspace, wanted, wait=wait, as_json=as_json)


def verify(workspace: Workspace, given: Path, serve_one: ServeOne, *, as_json: bool) -> Answer:
    """Make a picture again, now, and say whether it is identical; if not, what differs and can be why.

    Raises:
        HotfolderError: it does not say how it was made, was changed since, or cannot be made here.
    """
    wanted, old = _read(given)
    picture = given.with_name(given.name.removesuffix(".toml"))
    if picture.is_file():
        try:
            compare.check(picture, old)
        except JobError as error:
            return Answer(data={"picture": picture}, error=error, exit_code=ExitCode.NOT_COMPLETED)
    made = submit.run(workspace, wanted, serve_one, as_json=as_json)
    if made.error is not None:
        return made
    again = Path(made.data["pictures"][0])
    new = compare.read(again)
    return _answer(picture, again, old, new, str(made.data["job"]))


def rerun(workspace: Workspace, text: str | None, *, wait: bool, as_json: bool) -> Answer:
    """Drop the plan of a job again: of the one that is named, else of the last one.

    Raises:
        HotfolderError: there is no such job, or it has no plan.
    """
    view = jobs.newest(workspace, text) if text else jobs.last(workspace)
    plan = view.folder / "plan.toml"
    if not plan.is_file():
        rejected = view.state == "rejected"
        why = "was rejected" if rejected else f"is {view.state}"
        hint = "mend its .rejected.toml in the inbox" if rejected else f"hotfolder status {shown(view.name)} shows more"
        raise JobError("not-possible", f"{shown(view.name)} {why}: it has no plan that could be run again", hint)
    answer = submit.submit(workspace, Wanted(file=plan), wait=wait, as_json=as_json)
    same = f"the same as {shown(view.name)}"
    text = f"{answer.text} ({same})" if answer.text and not wait else answer.text
    return Answer(data={**answer.data, "of": view.name}, text=text, error=answer.error, exit_code=answer.exit_code)


def _read(given: Path) -> tuple[Wanted, Record]:
    """Return the job that makes a picture again, and the record of the picture.

    A sidecar counts for more than what the picture itself says: it alone can name the whole of it.
    """
    found = compare.read(given)
    sidecar = given if given.suffix == ".toml" else outputs.sidecar_of(given)
    name = given.name.removesuffix(".toml")
    text = sidecar.read_bytes() if sidecar.is_file() else record.dump(found)
    return Wanted(text=text, name=name, via="replay"), found


def _answer(picture: Path, again: Path, old: Record, new: Record, job: str) -> Answer:
    verdict = compare.verdict(old, new)
    found = compare.differences(old, new)
    data: dict[str, Any] = {
        "verdict": verdict.value,
        "picture": picture,
        "again": again,
        "job": job,
        "differences": [vars(one) for one in found],
    }
    if verdict is Verdict.IDENTICAL:
        lines = [f"{click.style('identical', fg='green')}: {where(again)}"]
        return Answer(data=data, text="\n".join([*lines, *(f"  though {_line(one)}" for one in found)]))
    whys = [one for one in found if one.explains]
    lines = [f"{where(again)} differs from {shown(picture.name)}:"]
    lines += [f"  {_line(one)}{', which can be why' if one.explains else ''}" for one in found]
    for of, speed in ((picture.name, old.speed), (again.name, new.speed)):
        if speed != "exact":
            lines.append(f'  {shown(of)} was made with speed "{speed}", which does not promise the same pixels')
    told = "other pixels, and that is explained" if verdict is Verdict.EXPLAINED else "other pixels without a reason"
    hint = (
        f"the same {', '.join(dict.fromkeys(_group(one) for one in whys))} would be needed"
        if whys
        else 'speed = "exact" promises the same pixels'
        if verdict is Verdict.EXPLAINED
        else "all that decides about them is the same: a defect of this program or of the machine; please report it"
    )
    error = JobError("not-identical", f"{shown(picture.name)}: {told}", hint)
    return Answer(data=data, text="\n".join(lines), error=error, exit_code=ExitCode.NOT_COMPLETED)


def _line(one: Difference) -> str:
    return f"{one.what}: {_short(one.old)} -> {_short(one.new)}"


def _short(value: str | None) -> str:
    if value is None:
        return "(not said)"
    return f"{value[:_SHORT]}..." if len(value) == _HASH_LENGTH else shown(value)


def _group(one: Difference) -> str:
    """Return what somebody would have to change to have the same again."""
    return one.what.replace("versions.", "")
