"""`use`: says which picture of a job is meant by `@NAME`."""

from collections.abc import Mapping
from typing import Any

from hotfolder.errors import JobError
from hotfolder.front import drop, follow, jobs
from hotfolder.front.answer import Answer, warn
from hotfolder.front.jobs import Named, View
from hotfolder.names import shown, split_take, take_folder
from hotfolder.workspace import Workspace


def use(workspace: Workspace, text: str, *, take: int | None, picture: int | None) -> Answer:
    """Make a picture of a job the one that `@NAME` means; with neither take nor picture the newest again.

    Raises:
        JobError: there is no such job, take or picture.
    """
    what = jobs.named(workspace, text)
    if what.exact:
        split = split_take(what.takes[0])
        named = split[1] if split else None
        if take is not None and take != named:
            raise JobError("bad-usage", f"{shown(text)} is take {named}, and --take says {take}", "leave one out")
        take = named
    found = _picture(workspace, what, take, picture)
    wish: dict[str, int] = {key: one for key, one in (("take", take), ("picture", picture)) if one is not None}
    file = drop.use(workspace, what.name, "".join(f"{key} = {one}\n" for key, one in wish.items()).encode())
    if not follow.served(workspace):
        warn("no daemon runs in this workspace: it is done when one is started", "hotfolder serve")
    newest = "" if wish else "; a newer take, once there is one"
    view, output = found
    told = f"@{shown(what.name)} is {shown(str(output['file']))} from now on{newest}"
    picture_path = view.folder / str(output["file"])
    return Answer(data={"name": what.name, "job": view.name, "picture": picture_path, "file": file, **wish}, text=told)


def _picture(
    workspace: Workspace, what: Named, take: int | None, picture: int | None
) -> tuple[View, Mapping[str, Any]]:
    """Return the finished picture that is meant."""
    takes = list(reversed(what.takes))
    if take is not None:
        takes = [one for one in takes if (split := split_take(one)) and split[1] == take]
        if not takes:
            hint = f"there are {', '.join(shown(one) for one in what.takes)}" if what.takes else ""
            raise JobError("not-found", f"there is no {shown(take_folder(what.name, take))}", hint)
    views = [view for one in takes if (view := jobs.view(workspace, one))]
    for view in views:
        made = [one for one in view.table.get("outputs", ()) if one not in view.to_pick]
        for output in made:
            if picture is None or output.get("candidate") == picture:
                return view, output
        if made and picture is not None:
            there = ", ".join(str(one.get("candidate")) for one in made)
            raise JobError("not-found", f"{shown(view.name)} has no picture {picture}", f"there are {there}")
    of = shown(views[0].name) if take is not None and views else shown(what.name)
    raise JobError("not-found", f"{of} has no finished picture", "hotfolder status shows where it is")
