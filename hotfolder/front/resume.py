"""What a `.resume` asks for: read from the command line, and checked against the job before it is dropped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hotfolder.errors import JobError
from hotfolder.front import jobs
from hotfolder.front.jobs import View
from hotfolder.names import shown

#: What any `.resume` is for.
_STOPPED: Final = frozenset({"failed", "cancelled", "partial", "held", "review"})
#: Those that can begin again at a stage: from the others nothing can be taken over while they are not over.
_BEGIN_AGAIN: Final = frozenset({"failed", "cancelled", "partial", "completed"})
#: Keys that decide how many candidates there are, which a job cannot change on its way.
_FIXED: Final = frozenset({"count", "add", "enabled"})
_STAGE_KEY_PARTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the command line asks for; nothing of it is needed."""

    #: Candidates of a job in review that go on.
    picks: tuple[int, ...] = ()
    #: The number or the name of the stage to begin again with.
    from_: int | str | None = None
    #: Stage -> its keys to change.
    stages: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    force: bool = False

    @property
    def data(self) -> bytes:
        """The file."""
        table: dict[str, object] = {"picks": list(self.picks)} if self.picks else {}
        table |= {"from": self.from_} if self.from_ is not None else {}
        table |= {"force": True} if self.force else {}
        table |= {"stage": self.stages} if self.stages else {}
        if not table:
            return b""
        import tomli_w

        return tomli_w.dumps(table).encode()


def read(picks: Sequence[int], listed: str | None, from_: str | None, settings: Sequence[str], *, force: bool) -> Wish:
    """Read the options of `resume`.

    Raises:
        JobError: `bad-usage`.
    """
    stages: dict[str, dict[str, object]] = {}
    for text in settings:
        from hotfolder.front.draft import parse_setting

        key, value = parse_setting(text)
        parts = key.split(".")
        if len(parts) != _STAGE_KEY_PARTS or parts[0] != "stage":
            found = f"--set {text}: stage.NAME.KEY=value is accepted"
            raise JobError("bad-usage", found, "such as --set stage.detect.label=mug")
        stages.setdefault(parts[1], {})[parts[2]] = value
    return Wish(
        picks=tuple(dict.fromkeys([*picks, *_numbers(listed)])),
        from_=int(from_) if from_ is not None and from_.isdecimal() else from_,
        stages=stages,
        force=force,
    )


def choose(views: Sequence[View], name: str, wish: Wish) -> View:
    """Return the take that is meant, of all that there are of a name, newest first.

    Raises:
        JobError: `not-possible`: none of them can go on so.
    """
    states = {"review"} if wish.picks else _STOPPED | (_BEGIN_AGAIN if wish.from_ is not None else set())
    for view in views:
        if view.state in states:
            return view
    if not views:
        raise JobError("not-possible", f"{shown(name)} has not begun yet, so it cannot go on")
    found = f"{shown(views[0].name)} is {views[0].state}"
    if wish.picks:
        raise JobError("not-possible", found, "only a job in review waits for somebody to pick")
    hint = "only a job that is held, in review, failed, cancelled or partial can go on; to make it again, drop it again"
    if views[0].state == "completed":
        hint += ", or begin again at a stage of it with --from STAGE"
    raise JobError("not-possible", found, hint)


def check(view: View, wish: Wish) -> str:
    """Check what can be known before it is dropped; return in words what will happen.

    Raises:
        JobError: it cannot be done.
    """
    name = shown(view.name)
    if view.state == "review":
        _check_picks(view, wish)
    if wish.from_ is not None and view.state not in _BEGIN_AGAIN:
        raise JobError(
            "not-possible",
            f"{name} is {view.state}, and only a job that has ended can begin again at a stage",
            f"cancel it first: hotfolder cancel {name}",
        )
    plan = jobs.plan(view.folder) if wish.from_ is not None or wish.stages else None
    if wish.from_ is None and not wish.stages:
        numbers = ", ".join(map(str, wish.picks))
        return f"{name} goes on" + (f" with candidate{'s' * (len(wish.picks) > 1)} {numbers}" if numbers else "")
    if plan is None:
        raise JobError("not-possible", f"{name} has no plan yet, so no stage of it can be named", "resume it as it is")
    stages: Sequence[Mapping[str, Any]] = plan.get("stages", ())
    begin = None if wish.from_ is None else _number(name, stages, wish.from_)
    for stage, keys in wish.stages.items():
        number = _number(name, stages, stage)
        _check_keys(stages[number - 1], stage, keys)
        _check_order(view, stage, number, begin)
    if begin is None or not _reached(view, begin):
        return f"{name} goes on"
    return f"the next take begins with what {name} made before stage {begin} ({stages[begin - 1]['id']})"


def _check_picks(view: View, wish: Wish) -> None:
    there = [int(one.get("candidate", 0)) for one in view.to_pick]
    listed = ", ".join(map(str, there))
    name = shown(view.name)
    if not wish.picks:
        hint = f"say which go on: hotfolder resume {name} --picks {','.join(map(str, there[:2]))}"
        raise JobError("not-possible", f"{name} waits for you to pick, of {listed}", hint)
    wrong = [number for number in wish.picks if number not in there]
    if wrong:
        found = f"candidate {wrong[0]} is not there to be picked"
        raise JobError("bad-value", f"{name}: {found}", f"there are {listed}")


def _number(name: str, stages: Sequence[Mapping[str, Any]], named: int | str) -> int:
    """Return the number of a stage, counted from 1."""
    for number, stage in enumerate(stages, 1):
        if named == number or named in {stage.get("id"), stage.get("stage")}:
            return number
    listed = ", ".join(f"{number} ({stage.get('id')})" for number, stage in enumerate(stages, 1))
    raise JobError("bad-value", f"{name} has no stage {shown(str(named))}", f"there are {listed}")


def _check_keys(planned: Mapping[str, Any], named: str, keys: Mapping[str, object]) -> None:
    from pydantic import ValidationError

    from hotfolder.stagekeys import STAGE_KEYS

    cls = STAGE_KEYS[planned["stage"]]
    for key in keys:
        where = f"stage.{shown(named)}.{shown(key)}"
        if key in _FIXED:
            raise JobError("not-possible", f"{where} cannot be changed on the way", "submit the job again with it")
        if key not in cls.model_fields:
            near = _nearest(key, list(cls.model_fields))
            raise JobError("unknown-key", f"{where}: unknown key", f"{near}it takes {', '.join(cls.model_fields)}")
    try:
        cls(**{key: value for key, value in planned.items() if key not in {"stage", "id"}} | dict(keys))
    except ValidationError as error:
        item = error.errors()[0]
        text = item["msg"].removeprefix("Value error, ")
        at = ".".join(["stage", shown(named), *map(str, item["loc"])])
        raise JobError("bad-value", f"{at}: {text[:1].lower()}{text[1:]}") from error


def _check_order(view: View, named: str, number: int, begin: int | None) -> None:
    """A stage that is not gone through again cannot get other keys."""
    if begin is not None:
        if number < begin:
            raise JobError(
                "not-possible", f"stage {shown(named)} comes before the one to begin with", f"use --from {shown(named)}"
            )
        return
    row = _row(view, number)
    if row.get("done") and row["done"] >= view.table.get("candidates", 0):
        found = f"stage {shown(named)} is done already in every candidate of {shown(view.name)}"
        raise JobError("not-possible", found, f"begin again there: add --from {shown(named)}")


def _reached(view: View, number: int) -> bool:
    """Whether some candidate has been through a stage: what it made stays, and a new take is made."""
    return any(row.get("done") for row in view.table.get("stages", ()) if row.get("number", 0) >= number)


def _row(view: View, number: int) -> Mapping[str, Any]:
    return next((row for row in view.table.get("stages", ()) if row.get("number") == number), {})


def _nearest(key: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}? " if near else ""


def _numbers(listed: str | None) -> list[int]:
    if listed is None:
        return []
    try:
        return [int(one) for one in listed.replace(" ", ",").split(",") if one]
    except ValueError:
        hint = "such as --picks 1,4"
        raise JobError("bad-usage", f"--picks {shown(listed)}: numbers of candidates are accepted", hint) from None
