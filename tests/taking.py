"""Pictures dropped into an inbox, and what a job takes of them."""

import io
from pathlib import Path

import pytest
from PIL import Image

from hotfolder import sources
from hotfolder.errors import JobError
from hotfolder.plan import Source
from hotfolder.planning import Wish
from hotfolder.settings import Settings


def settings_in(root: Path, **inbox: str) -> Settings:
    for folder in ("jobs_inbox", "outputs/mug_take01"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    return Settings.read(root, {f"HOTFOLDER_INBOX_{key}": value for key, value in inbox.items()})


def wish(name: str, role: str = "image", sha256: str | None = None) -> Wish:
    """What a job wishes for; with a hash, what a plan does, which names the place too."""
    return Wish(role=role, name=name, sha256=sha256, place=name if sha256 else None)


def png(image: Image.Image | None = None, **options: object) -> bytes:
    data = io.BytesIO()
    (image or Image.new("RGB", (8, 6), "red")).save(data, format="PNG", **options)
    return data.getvalue()


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png() if data is None else data)
    return path


def found_at(settings: Settings, name: str, lane: str = "", sha256: str | None = None) -> Path | None:
    found = sources.find(settings, wish(name, sha256=sha256), lane)
    return found.path if found else None


def take(settings: Settings, name: str, role: str = "image") -> Source:
    found = sources.find(settings, wish(name, role), "")
    assert found is not None
    return sources.take(settings, found, settings.outputs_dir / "mug_take01")


def take_bytes(settings: Settings, data: bytes, name: str = "a.png") -> Source:
    put(settings.inbox_dir / name, data)
    return take(settings, name)


def loaded(settings: Settings, data: bytes, role: str = "image") -> Image.Image:
    """The picture as the engine gets it, after having been dropped as `data`."""
    put(settings.inbox_dir / "a.png", data)
    source = take(settings, "a.png", role)
    image = sources.load(settings.outputs_dir / "mug_take01", {role: source})[role]
    assert image.size == (source.width, source.height), "the plan was told the size that the engine gets"
    return image


def refused(settings: Settings, data: bytes, name: str = "a.png") -> JobError:
    with pytest.raises(JobError) as caught:
        take_bytes(settings, data, name)
    assert not list((settings.outputs_dir / "mug_take01/sources").iterdir()), "nothing of it is left"
    return caught.value
