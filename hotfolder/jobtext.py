"""The text of a job file while it is read: where each thing stands in it, and what is wrong with it."""

from collections.abc import Sequence
from typing import Any, Final

from hotfolder.batch import STAGE_AXIS, AxisSaid, Found
from hotfolder.errors import Problem
from hotfolder.lanes import LaneDefaults
from hotfolder.names import shown
from hotfolder.pipelines import SaidStage
from hotfolder.stagekeys import StageKeys
from hotfolder.tomltext import Document

#: Values of one key that are looked at in vain before the rest is believed to be as wrong.
MAX_WRONG_VALUES: Final = 5

#: Stages, with the keys of each; None where they are wrong.
Keyed = Sequence[tuple[SaidStage, StageKeys | None]]


class JobText:
    """A job file, its lane, and what its batch names in the inbox; what is wrong gathers in `problems`."""

    def __init__(self, document: Document, lane: LaneDefaults, found: Found) -> None:
        self.document, self.lane, self.found = document, lane, found
        self.table = dict(document.table)
        self.own = {key: value for key, value in self.table.items() if key not in {"stages", "stage", "matrix"}}
        #: What the batch varies, once that is read.
        self.axes: Sequence[AxisSaid] = ()
        self.problems: list[Problem] = []
        #: How many more there are: to say what was meant takes time.
        self.unlooked = 0

    @property
    def varied(self) -> frozenset[str]:
        """The keys that the batch varies."""
        return frozenset(key for axis in self.axes for key in axis.keys)

    # --- what is wrong ---

    def problem(self, path: Sequence[str | int], code: str, message: str, hint: str = "") -> None:
        """Say what is wrong with what stands at a path."""
        self.problems.append(Problem(code=code, message=message, hint=hint, line=self.line_of(path)))

    def once(self, path: Sequence[str | int], code: str, message: str, hint: str) -> None:
        """The same, unless it was said before."""
        problem = Problem(code=code, message=message, hint=hint, line=self.line_of(path))
        if problem not in self.problems:
            self.problems.append(problem)

    # --- where it stands ---

    def line_of(self, path: Sequence[str | int]) -> int | None:
        """Return the line of a path; None where it does not stand in the text."""
        return self.document.line_of(path)

    def at(self, stage: SaidStage, key: str | None = None) -> Sequence[str | int]:
        """Return the path at which a stage, or one of its keys, was said."""
        tables = self.table.get("stage")
        if isinstance(tables, dict) and isinstance(own := tables.get(stage.id), dict) and (key is None or key in own):
            return ["stage", stage.id, *([key] if key else [])]
        listed = self.table.get("stages")
        if isinstance(listed, list):
            for index, one in enumerate(listed):
                if isinstance(one, dict) and one.get("id", one.get("stage")) == stage.id:
                    return ["stages", index, *([key] if key else [])]
        whole = f"{STAGE_AXIS}{stage.id}.{key}"
        axis = next((one for one in self.axes if whole in one.keys), None)
        return ["pipeline"] if axis is None else self.axis_path(axis, whole)

    def axis_path(self, axis: AxisSaid, key: str) -> list[str]:
        """Return the path of an axis; "stage.crop.padding" may be one word or three."""
        if axis.columns:
            return ["items"]
        whole = ["matrix", key]
        return whole if tuple(whole) in self.document.lines else ["matrix", *key.split(".")]

    def of_list(self, axis: AxisSaid, index: int | None = None) -> str:
        """Return where in a list of items something stands; "" for an axis of the matrix."""
        if not axis.columns:
            return ""
        line = f", line {axis.lines[index]}" if index is not None and axis.lines else ""
        return f"{shown(str(self.table.get('items')))}{line}: "

    def values_of(self, key: str, stages: Keyed = (), axes: Sequence[AxisSaid] | None = None) -> list[str]:
        """Return all texts that the batch gives a key, of the job or, for the presets of stages, of any stage.

        Args:
            axes: of these alone.
        """
        keys = (
            {key}
            | {f"{STAGE_AXIS}{stage.id}.{key}" for stage, _ in stages}
            | {f"{STAGE_AXIS}{stage.id}.by" for stage, _ in stages if stage.stage in {"detect", "upscale"}}
        )
        found: list[Any] = [
            value
            for axis in (self.axes if axes is None else axes)
            if keys & set(axis.keys)
            for index in range(len(axis.values))
            for name, value in axis.at(index).items()
            if name in keys and value not in ("subject", "lanczos")  # which may be a list
        ]
        return list(dict.fromkeys(value for value in found if isinstance(value, str)))
