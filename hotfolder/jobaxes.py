"""The axes of a job file, `[matrix]` and its list of items: every value of them is checked by the class of its key."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from hotfolder import advice, batch
from hotfolder.batch import STAGE_AXIS, AxisSaid
from hotfolder.errors import Problem
from hotfolder.jobtext import MAX_WRONG_VALUES, JobText, Keyed
from hotfolder.kindkeys import CommonKeys
from hotfolder.names import cut, shown
from hotfolder.stagekeys import STAGE_KEYS, Generating


def read(text: JobText) -> list[AxisSaid]:
    """Read the axes: those of the matrix first, in the order in which they stand."""
    axes: list[AxisSaid] = []
    if "matrix" in text.table:
        axes, problems = batch.read_matrix(text.table["matrix"], text.found)
        for key, message, hint in problems:
            text.problem(["matrix", *key.split(".")], "bad-value", message, hint)
    if text.found.items is not None:
        axis, wrong = batch.read_items(text.found, str(text.table.get("items")))
        line = text.line_of(["items"])
        text.problems += [Problem(code=one.code, message=one.message, hint=one.hint, line=line) for one in wrong]
        axes += [axis] if axis is not None else []
    twice = [key for axis in axes for key in axis.keys]
    for key in sorted({key for key in twice if twice.count(key) > 1}):
        text.problem(["items"], "bad-value", f"{cut(shown(key))} stands in [matrix] and in the list", "leave one out")
    return axes


def check(text: JobText, kinds: Sequence[str], classes: Sequence[type[CommonKeys]], keyed: Keyed) -> None:
    """Check every key and value of the text's axes.

    Args:
        kinds: of the presets that the job may use.
        classes: of the job's own keys.
    """
    checks = _Checks(text, kinds, classes, keyed)
    for axis in text.axes:
        for key in axis.keys:
            checks.check_key(axis, key)
        checks.check_values(axis)


class _Checks:
    def __init__(self, text: JobText, kinds: Sequence[str], classes: Sequence[type[CommonKeys]], keyed: Keyed) -> None:
        self._text, self._kinds, self._classes, self._keyed = text, kinds, classes, keyed

    def check_key(self, axis: AxisSaid, key: str) -> None:
        text, keyed = self._text, self._keyed
        path = text.axis_path(axis, key)
        if key.startswith(STAGE_AXIS):
            id_, _, stage_key = key.removeprefix(STAGE_AXIS).partition(".")
            stage = next((stage for stage, _ in keyed if stage.id == id_), None)
            known = stage is not None and stage_key in STAGE_KEYS[stage.stage].model_fields
            if keyed and (not known or stage_key in {"count", "add"}):
                text.problem(path, "unknown-key", f"{text.of_list(axis)}no stage takes {cut(shown(key))}")
        elif key not in advice.ALL_KEYS:
            text.problem(path, "unknown-key", f"unknown key {cut(shown(key))}", advice.did_you_mean(key))
        elif any(key in cls.model_fields for cls in self._classes):
            return
        elif keyed and not any(STAGE_KEYS[stage.stage].generates for stage, _ in keyed):
            text.problem(path, "unknown-key", f"no stage of this job takes {key}")
        elif self._kinds:
            kinds = ", ".join(dict.fromkeys(self._kinds))
            text.problem(path, "wrong-kind", f"the kind {kinds} does not take {key}")

    def check_values(self, axis: AxisSaid) -> None:
        wrong = 0
        for index in range(len(axis.values)):
            values = axis.at(index)
            wrong += self._lacks_prompt(axis, index)
            own = {
                key: value for key, value in values.items() if not key.startswith(STAGE_AXIS) and key in advice.ALL_KEYS
            }
            for cls in self._classes:
                tried = {key: value for key, value in own.items() if key in cls.model_fields}
                wrong += self._try(cls, tried, "", axis, index)
            for stage, _ in self._keyed:
                prefix = f"{STAGE_AXIS}{stage.id}."
                told = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
                of_stage = STAGE_KEYS[stage.stage]
                if told and told.keys() <= of_stage.model_fields.keys():
                    wrong += self._try(of_stage, {**stage.keys, **told}, prefix, axis, index)
            if wrong >= MAX_WRONG_VALUES:
                return

    def _try(self, cls: type[BaseModel], values: Mapping[str, Any], prefix: str, axis: AxisSaid, index: int) -> int:
        """Check the values of one place of an axis; return how many are wrong."""
        text = self._text
        try:
            cls(**values)
        except ValidationError as error:
            said = axis.at(index)
            wrong = [item for item in error.errors() if not item["loc"] or f"{prefix}{item['loc'][0]}" in said]
            for item in wrong:
                key = f"{prefix}{item['loc'][0]}" if item["loc"] else next(iter(said))
                of = text.of_list(axis, index) or "matrix: "
                found, told = advice.in_words(item)
                text.problem(text.axis_path(axis, key), "bad-value", f"{of}{key}{found}: {told}")
            return len(wrong)
        return 0

    def _lacks_prompt(self, axis: AxisSaid, index: int) -> bool:
        """Whether an item whose prompt an axis sets, or leaves open, has none; that is said."""
        text = self._text
        if "prompt" not in axis.keys:
            return False
        values = {**text.lane.keys, **text.own, **axis.at(index)}
        first = next((keys for _, keys in self._keyed if isinstance(keys, Generating)), None)
        if first is None or first.prompt or values.get("prompt") or values.get("image") or "image" in text.varied:
            return False
        told = f"{text.of_list(axis, index) or 'matrix: '}a prompt or an image is needed"
        text.problem(text.axis_path(axis, "prompt"), "missing-key", told)
        return True
