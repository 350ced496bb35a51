"""`hotfolder doctor`: what this machine and this workspace have, and what will not work."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click

from hotfolder import __version__, models
from hotfolder.errors import HotfolderError, SettingsError
from hotfolder.front.answer import Answer, ExitCode
from hotfolder.front.show import where
from hotfolder.lock import holder
from hotfolder.names import shown
from hotfolder.presets import Preset, Presets
from hotfolder.settings import Settings, prepare_models
from hotfolder.settle import is_network, mount_type

_LIBRARIES: Final = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "huggingface_hub",
    "accelerate",
    "safetensors",
    "pillow",
    "pydantic",
    "watchdog",
)
_LABEL: Final = 11
#: Lanes need one watch each; other programs take theirs from the same purse.
_FEW_WATCHES: Final = 1024
_FEW_INSTANCES: Final = 64
#: torch takes seconds to load, on a cold disk many.
_TORCH_TIMEOUT_S: Final = 180.0
#: Asked in a process of its own, so that this one never loads torch.
_ASK_TORCH: Final = """
import json, torch
devices = []
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        devices.append({"device": f"cuda:{index}", "name": name, "free_gb": free / 1e9, "total_gb": total / 1e9})
print(json.dumps({"version": torch.__version__, "devices": devices, "threads": torch.get_num_threads()}))
"""


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    #: Works, but not as well as it could, or not yet.
    NOTE = "note"
    #: Jobs will fail, or nothing will run.
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    about: str
    text: str
    level: Level = Level.OK
    hint: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, the quick things first."""
    yield from _versions()
    yield from _workspace(settings)
    yield from _mounts(settings)
    yield from _inotify()
    yield from _disks(settings)
    yield from _gpu(settings)
    yield from _models(settings)


def report(settings: Settings, *, as_json: bool) -> Answer:
    """Look at everything and say it as it is found; what is wrong makes it no success."""
    findings = []
    last = ""
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            click.echo(_line(finding, repeated=finding.about == last))
        last = finding.about
    wrong = [finding for finding in findings if finding.level is Level.WRONG]
    error = (
        SettingsError("bad-settings", f"{len(wrong)} thing(s) will not work: {'; '.join(one.text for one in wrong)}")
        if wrong
        else None
    )
    data = {"findings": [{**vars(finding), "level": finding.level.value} for finding in findings]}
    return Answer(data=data, error=error, exit_code=ExitCode.USAGE if wrong else ExitCode.DONE)


def _line(finding: Finding, *, repeated: bool) -> str:
    colour = {Level.NOTE: "yellow", Level.WRONG: "red"}.get(finding.level)
    mark = click.style({Level.OK: " ", Level.NOTE: "-", Level.WRONG: "!"}[finding.level], fg=colour)
    label = click.style(("" if repeated else finding.about).ljust(_LABEL), dim=True)
    hint = f"\n{' ' * (_LABEL + 2)}{click.style('hint:', fg='cyan')} {finding.hint}" if finding.hint else ""
    return f"{label}{mark} {click.style(shown(finding.text), fg=colour)}{hint}"


def _versions() -> Iterator[Finding]:
    yield Finding(
        about="versions", text=f"hotfolder {__version__}, Python {sys.version.split()[0]}, Linux {os.uname().release}"
    )
    found, absent = [], []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            absent.append(name)
    yield Finding(about="versions", text=", ".join(found))
    if absent:
        yield Finding(
            about="versions",
            text=f"missing: {', '.join(absent)}",
            level=Level.WRONG,
            hint="install hotfolder again: make install",
        )


def _workspace(settings: Settings) -> Iterator[Finding]:
    yield Finding(
        about="workspace",
        text=str(settings.workspace) + ("" if settings.file.is_file() else ", without a hotfolder.toml: all defaults"),
    )
    for folder in (settings.inbox_dir, settings.outputs_dir):
        if not folder.is_dir():
            yield Finding(
                about="workspace",
                text=f"{folder.name}/ is not there",
                level=Level.NOTE,
                hint="hotfolder init makes what is missing",
            )
        elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            yield Finding(
                about="workspace",
                text=f"{folder.name}/ cannot be read and written by this user",
                level=Level.WRONG,
                hint="the daemon takes job files away from the inbox and writes to outputs/: give its user the right",
            )
    who = holder(settings.workspace)
    yield Finding(about="daemon", text=f"runs: process {who.pid} on {who.host}" if who else "does not run")


def _mounts(settings: Settings) -> Iterator[Finding]:
    for folder in (settings.inbox_dir, settings.outputs_dir):
        kind = mount_type(folder) or "unknown"
        if is_network(kind):
            text = f"{folder.name}/ lies on {kind}, where changes send no events: it is looked into by time"
            yield Finding(
                about="mounts", text=text, level=Level.NOTE, hint="writers should write .NAME.toml.tmp and rename it"
            )
        else:
            yield Finding(about="mounts", text=f"{folder.name}/ lies on {kind}")


def _inotify() -> Iterator[Finding]:
    limits = {
        name: _number(Path("/proc/sys/fs/inotify") / name)
        for name in ("max_user_watches", "max_user_instances", "max_queued_events")
    }
    text = ", ".join(f"{name} {'unknown' if value is None else value}" for name, value in limits.items())
    watches, instances = limits["max_user_watches"], limits["max_user_instances"]
    low = (watches is not None and watches < _FEW_WATCHES) or (instances is not None and instances < _FEW_INSTANCES)
    hint = "raise them with sysctl fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances=512" if low else ""
    yield Finding(about="inotify", text=text, level=Level.NOTE if low else Level.OK, hint=hint)


def _disks(settings: Settings) -> Iterator[Finding]:
    for about, folder in (("outputs/", settings.outputs_dir), ("models", settings.models_path)):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        usage = shutil.disk_usage(place)
        free = usage.free / 1e9
        text = f"{about}: {free:.0f} GB free of {usage.total / 1e9:.0f}"
        full = about == "outputs/" and free < settings.outputs.min_free_gb
        hint = (
            f"no picture is begun with less than {settings.outputs.min_free_gb:g} GB free (min_free_gb)" if full else ""
        )
        yield Finding(about="disk", text=text, level=Level.WRONG if full else Level.OK, hint=hint)


def _gpu(settings: Settings) -> Iterator[Finding]:
    driver = _driver()
    if driver:
        yield Finding(about="GPU", text=driver)
    told = _ask_torch()
    if told is None:
        yield Finding(
            about="GPU", text="torch cannot be loaded", level=Level.WRONG, hint="install hotfolder again: make install"
        )
        return
    for one in told["devices"]:
        yield Finding(
            about="GPU", text=f"{one['device']}: {one['name']}, {one['free_gb']:.1f} GB free of {one['total_gb']:.1f}"
        )
    names = [one["device"] for one in told["devices"]]
    wanted = "cuda:0" if settings.device == "cuda" else settings.device
    if wanted.startswith("cuda") and wanted not in names:
        hint = f"there are: {', '.join(names)}" if names else "set device of hotfolder.toml to auto or cpu"
        yield Finding(
            about="GPU", text=f"device = {settings.device!r}, which torch does not see", level=Level.WRONG, hint=hint
        )
    elif driver and not names and settings.device == "auto":
        text = f"the driver sees a GPU, but torch {told['version']} does not: pictures are made on the CPU"
        yield Finding(
            about="GPU", text=text, level=Level.NOTE, hint="install the CUDA build of torch that fits the driver"
        )
    elif not names:
        text = f"none that torch sees: pictures are made on the CPU with {settings.threads or told['threads']} threads"
        yield Finding(
            about="GPU",
            text=text,
            level=Level.NOTE,
            hint="enough for the tiny presets; FLUX takes minutes to hours a picture",
        )


def _models(settings: Settings) -> Iterator[Finding]:
    presets = Presets.of(settings.presets_dir)
    yield Finding(about="models", text=f"kept in {where(prepare_models(settings))}")
    for name in presets.names():
        try:
            yield _model(presets.get(name), settings)
        except HotfolderError as error:
            yield Finding(about="models", text=f"{name}: {error.message}", level=Level.WRONG, hint=error.hint)


def _model(preset: Preset, settings: Settings) -> Finding:
    state = models.state(preset.model, settings)
    if state != "missing":
        return Finding(about="models", text=f"{preset.name}: {state}")
    size = f" ({preset.download_gb:g} GB)" if preset.download_gb else ""
    if preset.name == settings.default_preset:
        hint = models.missing(preset.model.repo, settings, preset).hint
        return Finding(
            about="models",
            text=f"{preset.name}: missing, and it is the default preset{size}",
            level=Level.NOTE,
            hint=hint,
        )
    return Finding(about="models", text=f"{preset.name}: not on this machine{size}")


def _driver() -> str:
    """Ask the NVIDIA driver; "" where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (
        "driver: " + "; ".join(done.stdout.strip().splitlines()) if done.returncode == 0 and done.stdout.strip() else ""
    )


def _ask_torch() -> dict[str, Any] | None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_TORCH_TIMEOUT_S, check=False
        )
        told = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
