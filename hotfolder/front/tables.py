"""What is shown as a table: the history, the presets, the schedules."""

import datetime as dt
from typing import Any, Final

import click

from hotfolder import gallery, models, schedules
from hotfolder.errors import HotfolderError
from hotfolder.front import show
from hotfolder.front.answer import Answer, problem_table
from hotfolder.front.show import columns, facts, state, when, where
from hotfolder.names import shown
from hotfolder.presets import Preset, Presets, shipped_dir
from hotfolder.settings import Settings

_CUT: Final = 60


def history(settings: Settings, count: int) -> Answer:
    """Return the jobs that ended last."""
    ended = gallery.recent(settings.cache_dir, settings.outputs_dir, count)
    rows = [
        [
            when(dt.datetime.fromisoformat(one.finished_at)) if one.finished_at else "",
            shown(one.job),
            state(one.state),
            str(one.done) + (f" (+{one.failed} failed)" if one.failed else ""),
            one.preset,
            shown(_cut(one.error or one.title)),
        ]
        for one in ended
    ]
    text = columns(("ended", "job", "state", "pictures", "preset", ""), rows) if rows else "No job has ended yet."
    return Answer(data={"jobs": [vars(one) for one in ended]}, text=text)


def presets(settings: Settings) -> Answer:
    """Return all presets, and whether their models are on this machine."""
    found = Presets.of(settings.presets_dir)
    rows, data = [], []
    for name in found.names():
        try:
            preset = found.get(name)
        except HotfolderError as error:
            rows.append([name, "", click.style("wrong", fg="red"), "", shown(error.message)])
            data.append({"name": name, "error": {"code": error.code, "message": error.message, "hint": error.hint}})
            continue
        here = models.state(preset.model, settings)
        size = f"{preset.download_gb:g} GB" if preset.download_gb else ""
        default = " (default)" if name == settings.default_preset else ""
        rows.append(
            [
                name,
                preset.kind,
                click.style(here, fg="green") if here == "ready" else here,
                size,
                preset.title + default,
            ]
        )
        data.append(_summary(preset, settings))
    text = columns(("preset", "kind", "model", "download", ""), rows)
    return Answer(
        data={"presets": data}, text=f"{text}\n\nhotfolder presets show NAME tells where each value comes from."
    )


def preset(settings: Settings, name: str) -> Answer:
    """Return one preset: each value, and the file it comes from.

    Raises:
        SettingsError: `unknown-preset`, `service-only` or `bad-preset`.
    """
    found = Presets.of(settings.presets_dir).get(name)
    values = dict(_flat(found.model_dump(exclude={"name", "origins"}, exclude_none=True)))
    files = {key: _file(settings, found.origins[key]) if key in found.origins else "default" for key in values}
    told = {key: value for key, value in values.items() if value != ""}
    table = columns(
        ("key", "value", "from"),
        [[key, show.value(value), click.style(files[key], dim=True)] for key, value in told.items()],
    )
    head = facts(
        [
            ("preset", click.style(name, bold=True) + (" (default)" if name == settings.default_preset else "")),
            ("model", f"{found.model.repo}: {models.state(found.model, settings)}"),
            ("download", f"{found.download_gb:g} GB, once" if found.download_gb else ""),
        ]
    )
    data = {
        **_summary(found, settings),
        "values": {key: {"value": value, "from": files[key]} for key, value in values.items()},
    }
    return Answer(data=data, text=f"{head}\n\n{table}")


def schedule(settings: Settings) -> Answer:
    """Return the schedules: when each runs next, and what came of it last."""
    rows, data = [], []
    for row in schedules.listing(settings):
        note = row.note
        last = f"{when(note.last_run)} {shown(note.last_take or '')}".strip() if note.last_run else ""
        error = note.error.message if note.error else ""
        rows.append(
            [row.name, when(note.next_run) if note.next_run else note.state.value, shown(note.when), last, shown(error)]
        )
        data.append(
            {
                "name": row.name,
                "file": row.file,
                "state": note.state.value,
                "when": note.when,
                "next_run": note.next_run,
                "last_run": note.last_run,
                "last_take": note.last_take,
                "skipped": note.skipped,
                "error": problem_table(note.error) if note.error else None,
            }
        )
    nothing = "Nothing is scheduled. A job file with a [schedule] table, dropped into the inbox, is run by the clock."
    return Answer(
        data={"schedules": data}, text=columns(("name", "next run", "when", "last run", ""), rows) if rows else nothing
    )


def _summary(preset: Preset, settings: Settings) -> dict[str, Any]:
    return {
        "name": preset.name,
        "kind": preset.kind,
        "title": preset.title,
        "licence": preset.licence,
        "download_gb": preset.download_gb,
        "url": preset.url,
        "repo": preset.model.repo,
        "model_state": models.state(preset.model, settings),
        "default": preset.name == settings.default_preset,
    }


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    result: list[tuple[str, object]] = []
    for key, value in table.items():
        result += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return result


def _file(settings: Settings, origin: str) -> str:
    shipped = str(shipped_dir())
    if origin.startswith(shipped) and settings.presets_dir.resolve() != shipped_dir().resolve():
        return f"{origin.removeprefix(shipped).lstrip('/')} (shipped)"
    from pathlib import Path

    return where(Path(origin))


def _cut(text: str) -> str:
    return text if len(text) <= _CUT else f"{text[: _CUT - 3]}..."
