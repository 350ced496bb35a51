"""What is dropped, what else happens while it runs, and how each job must end. To add one, add it to SCENARIOS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from conftest import Workspace

_BODY = "steps = 2\nwidth = 32\nheight = 16\n"
_CHAIN = """
[[stages]]
stage = "generate"
[[stages]]
stage = "pad"
left = 8
[[stages]]
stage = "export"
"""
#: With checkpoints in between, on the GPU thread and beside it, and a choice.
_CHOICE = """
[[stages]]
stage = "generate"
[[stages]]
stage = "pad"
left = 8
[[stages]]
stage = "select"
keep = 2
[[stages]]
stage = "color"
brightness = 1.1
[[stages]]
stage = "export"
"""
_REVIEW = """
[[stages]]
stage = "generate"
[[stages]]
stage = "select"
by = "review"
[[stages]]
stage = "export"
"""


@dataclass(frozen=True, kw_only=True)
class Drop:
    """One file for the inbox."""

    name: str
    #: None: it is a picture.
    text: str | None = ""

    def into(self, workspace: Workspace) -> None:
        """Drop it as a careful program does."""
        if self.text is None:
            workspace.picture(self.name, size=(32, 16))
        else:
            workspace.drop(self.name, self.text)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """One job, and how it must end."""

    text: str
    state: str = "completed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """One thing that users do. A daemon that comes to rest after each part of it is disturbed in one of them."""

    name: str
    #: Served to the end before, undisturbed.
    before: tuple[Drop, ...] = ()
    drops: tuple[Drop, ...]
    #: Dropped while it runs, once `when` holds.
    meanwhile: tuple[Drop, ...] = ()
    when: Callable[[Workspace], bool] = field(default=lambda _: True)
    #: Dropped when all has come to rest, and served to the end.
    then: tuple[Drop, ...] = ()
    #: Job -> how it must end; these and no others.
    jobs: Mapping[str, Expected]
    #: The states in which jobs rest before `then`; empty: as they end.
    rest: Mapping[str, str] = field(default_factory=dict)
    #: What still lies in the inbox at the end.
    left: tuple[str, ...] = ()
    #: Names of the pictures that also lie in outputs/processed/.
    processed: tuple[str, ...] = ()
    #: Whether somebody chooses: where a candidate failed, the choice falls without it.
    chooses: bool = False
    #: How long a step takes, from the second picture of a process on.
    step_ms: float = 0.0


def _mug(more: str, *, prompt: str = "a mug", seed: int = 42, count: int = 2) -> str:
    return f'prompt = "{prompt}"\nseed = {seed}\ncount = {count}\n{_BODY}{more}'


def _has_first_picture(workspace: Workspace) -> bool:
    return bool(workspace.status("mug_take01").get("done", 0) >= 1)


_WITH_PICTURE = f'image = "mug.png"\nstrength = 0.5\n{_mug(_CHAIN)}'
_PUBLISHED = _mug('[[stages]]\nstage = "generate"\n[[stages]]\nstage = "export"\nto = "processed"\n', count=1)
_ENDLESS = _mug("").replace("steps = 2", "steps = 1000")
_PICK = "picks = [2]\nforce = true\n"
_NIGHTLY = f"{_mug('', count=1)}[schedule]\nat = 2026-01-01T02:00:00Z\ncatch_up = true\n"
_BURST = {f"{name}_take01": _mug("", prompt=name, count=1) for name in ("cup", "jug", "pot", "urn")}
_WRONG = 'prompt = "a mug"\nsteps = 0\n'
_REVIEWED = Expected(text=_mug(_REVIEW))
_CANCEL = Drop(name="mug.cancel")

SCENARIOS = [
    Scenario(
        name="drop",
        drops=(Drop(name="mug.png", text=None), Drop(name="mug.toml", text=_WITH_PICTURE)),
        jobs={"mug_take01": Expected(text=_WITH_PICTURE)},
        left=("mug.png",),
    ),
    Scenario(
        name="choice",
        drops=(Drop(name="mug.toml", text=_mug(_CHOICE)),),
        jobs={"mug_take01": Expected(text=_mug(_CHOICE))},
        chooses=True,
    ),
    Scenario(
        name="cancel",
        drops=(Drop(name="mug.toml", text=_ENDLESS),),
        meanwhile=(_CANCEL,),
        when=_has_first_picture,
        jobs={"mug_take01": Expected(text=_ENDLESS, state="cancelled")},
        step_ms=5.0,
    ),
    Scenario(
        name="review",
        drops=(Drop(name="mug.toml", text=_mug(_REVIEW)),),
        then=(Drop(name="mug.resume", text=_PICK),),
        rest={"mug_take01": "review"},
        jobs={"mug_take01": _REVIEWED},
        chooses=True,
    ),
    Scenario(
        name="picks",
        before=(Drop(name="mug.toml", text=_mug(_REVIEW)),),
        drops=(Drop(name="mug.resume", text=_PICK),),
        jobs={"mug_take01": _REVIEWED},
        chooses=True,
    ),
    Scenario(
        name="resume",
        before=(Drop(name="mug.toml", text=_mug("")), _CANCEL),
        drops=(Drop(name="mug.resume"),),
        jobs={"mug_take01": Expected(text=_mug(""))},
    ),
    Scenario(
        name="take",
        before=(Drop(name="mug.toml", text=_mug(_CHAIN)),),
        drops=(Drop(name="mug.toml", text=_mug(_CHAIN, prompt="another")),),
        jobs={"mug_take01": Expected(text=_mug(_CHAIN)), "mug_take02": Expected(text=_mug(_CHAIN, prompt="another"))},
    ),
    Scenario(
        name="schedule",
        drops=(Drop(name="nightly.toml", text=_NIGHTLY),),
        jobs={"nightly_take01": Expected(text=_NIGHTLY)},
        left=("scheduled/nightly.status.toml", "scheduled/nightly.toml"),
    ),
    Scenario(
        name="burst",
        drops=tuple(Drop(name=f"{job.removesuffix('_take01')}.toml", text=text) for job, text in _BURST.items()),
        jobs={job: Expected(text=text) for job, text in _BURST.items()},
    ),
    Scenario(
        name="wrong",
        drops=(Drop(name="mug.toml", text=_WRONG),),
        jobs={"mug_take01": Expected(text=_WRONG, state="rejected")},
        left=("mug.rejected.toml",),
    ),
    Scenario(
        name="publish",
        drops=(Drop(name="mug.toml", text=_PUBLISHED),),
        jobs={"mug_take01": Expected(text=_PUBLISHED)},
        processed=("mug_take01_001.png",),
    ),
]
