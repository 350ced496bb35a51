"""Good texts of every kind that somebody may write: what the hostile ones are made from."""

import io
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import samples
from clocks import NOON
from PIL import Image
from samples import MODEL

from hotfolder import checkpoint, encoding, journal, record
from hotfolder.checkpoint import name_of
from hotfolder.journal import Event, Failure, Origin, Output
from hotfolder.plan import Axis, PlannedStage
from hotfolder.schedules import Note, State
from hotfolder.takes import Active, ActiveFile

ROOT: Final = Path(__file__).parent.parent

JOB_TEXT: Final = b'prompt = "a mug"\nsteps = 2\nwidth = 64\nheight = 64\n'
#: Every kind of statement that a job file can hold.
FULL_JOB: Final = b"""\
# a job with a word of everything
preset = "noise"
prompt = "a \\u00fcber-mug"
seed = 42
count = 2
priority = -5
guidance = 3.5
title = 'spring'
meta.customer = {number = 1207, since = 2026-11-20T12:00:00Z, tags = ["a", "b"]}

[[stages]]
stage = "generate"
[[stages]]
stage = "crop"
padding = 5
aspect = "4:3"
[[stages]]
stage = "export"
format = "webp"

[matrix]
seed = [1, 2, 3]
"stage.crop.padding" = [0, 30]
prompt = [
  "a mug",  # one
  "a cup",
]
"""


def _docs() -> tuple[bytes, ...]:
    """Every piece of TOML in the manual."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    return tuple(
        block.encode()
        for text in texts
        for block in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    )


def _files(folder: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((ROOT / folder).glob("*.toml")))


def _plans() -> tuple[bytes, ...]:
    model = MODEL.model_copy(update={"repo": "hotfolder/noise", "dtype": "float32"})
    plain = samples.plan(model=model, preset="noise", meta={"sku": 7})
    plain = plain.changed(presets={"noise": plain.presets["flux-dev"]})
    sourced = plain.changed(
        sources=(samples.source(),),
        keys={**plain.keys, "image": "mug.png", "strength": 0.5},
        axes=(
            Axis(key="prompt", values=("a mug", "a cup")),
            Axis(key="items", columns=("seed", "stage.crop.padding"), values=([1, 5], [2, []])),
        ),
        stages=(
            PlannedStage(stage="generate", id="generate", keys={"count": 2}),
            PlannedStage(stage="select", id="select", keys={"keep": 1}),
            PlannedStage(stage="crop", id="crop", keys={"aspect": "4:3", "padding": 3}),
            PlannedStage(stage="export", id="export"),
        ),
    )
    return plain.dump(), sourced.dump(), record.dump(samples.record_of(plain))


def _journal() -> bytes:
    """A whole life, with a line of every kind."""
    output = Output(candidate=1, file=f"{_JOB}_001.png", seed=42, sha256="c" * 64, pixels_sha256="d" * 64, seconds=1.0)
    failure = Failure(code="internal", message="no", candidate=2)
    told: list[tuple[Event, dict[str, object]]] = [
        (Event.ADMITTED, {}),
        (Event.WAITING, {"pictures": ["mug.png"]}),
        (Event.PLANNED, {"sha256": "b" * 64, "notices": ["rounded"]}),
        (Event.STARTED, {"run_id": "run-1"}),
        (
            Event.CELL,
            {
                "candidate": 1,
                "stage": 1,
                "files": [["picture", "work/001_01_generate.png", "e" * 64]],
                "boxes": [[1, 2, 3, 4, "mug", 0.5]],
                "seconds": 0.5,
                "record": {"number": 1},
            },
        ),
        (Event.CHOSEN, {"chosen": [[1, 1, [1]]], "scores": {}}),
        (Event.REVIEW, {}),
        (Event.PICKED, {"chosen": [[1, 1, [1, 2]]], "force": True}),
        (Event.DONE, {"outputs": [asdict(output)]}),
        (Event.RETRY, {"error": asdict(failure), "tries": 1}),
        (Event.FAILED, {"error": asdict(failure)}),
        (Event.DIED, {"candidate": 1, "run_id": "run-1", "evidence": None}),
        (Event.HELD, {"why": "its own pause"}),
        (Event.RELEASED, {}),
        (Event.FIRST, {"rank": 1}),
        (Event.NOTICE, {"text": "x"}),
    ]
    origin = Origin(file="mug.toml", size=15, mtime_ns=1, sha256="a" * 64)
    first = journal.opening(NOON, seq=7, mode="queued", origin=origin)
    return journal.encode(first, *(journal.line(event, NOON, **facts) for event, facts in told))


def _work() -> bytes:
    """What a cell left in work/."""
    file, image = name_of(1, 1, "generate", "picture"), samples.picture()
    sha256 = record.pixels_sha256(image)
    facts = {"files": [["picture", file, sha256]], "boxes": [], "seconds": 1.0, "record": {"number": 1}}
    line = journal.line(Event.CELL, NOON, candidate=1, stage=1, **facts)
    with TemporaryDirectory() as folder:
        checkpoint.write(Path(folder), {file: (sha256, image)}, line)
        return (Path(folder) / file).read_bytes()


def picture(form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    """A picture whose pixels all differ a little."""
    data = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(data, format=form, **options)
    return data.getvalue()


def _pictures() -> tuple[bytes, ...]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return (
        *(picture("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        picture("PNG", "RGB", exif=exif, icc_profile=b"no profile" * 9),
        picture("JPEG", exif=exif),
        picture("JPEG", "CMYK", progressive=True),
        picture("WEBP", lossless=True),
        picture("AVIF"),
        *(picture("TIFF", "RGB", compression=how) for how in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        picture("TIFF", "F"),
        picture("BMP"),
        picture("GIF", "P", save_all=True, append_images=[Image.new("P", (24, 16), 3)]),
    )


_JOB: Final = "mug_take01"
JOURNAL: Final = _journal()
#: The same of a job that is completed.
ENDED: Final = JOURNAL + journal.encode(journal.line(Event.ENDED, NOON, state="completed", error=None, problems=[]))
_DROPPED: Final = (JOB_TEXT, FULL_JOB, *_docs())
_ACTIVE: Final = Active(
    job="mug",
    take=_JOB,
    by="newest",
    files=(ActiveFile(candidate=1, file=f"outputs/{_JOB}/{_JOB}_001.png", sha256="c" * 64),),
)
_NOTE: Final = Note(
    schedule="mug.toml", state=State.WAITING, folder="", when="cron 0 2 * * * (UTC)", since=NOON, next_run=NOON
)

#: Reader -> texts that it takes, or that come near.
SEEDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "job": _DROPPED,
    "plan": _plans(),
    "lane": (b'picture_jobs = true\nhold = false\nsteps = 3\nguidance = 2\npreset = "noise"\nprompt = "a mug"\n',),
    "table": (
        b'prompt,seed,stage.crop.padding\r\n"a mug, ""red""",1,\r\na cup,2,[1]\r\n',
        "seed;image;prompt\n1;a.png;ü\n\n2;;{a = 1}\n".encode(),
    ),
    "lines": ("# prompts\na mug\n\n  a cüp  \n".encode(),),
    "schedule": (
        b'prompt = "a mug"\n[schedule]\ncron = "0 2 * * mon-fri"\ntimezone = "Europe/Berlin"\ncatch_up = true\n',
        b'prompt = "a mug"\n[schedule]\nat = 2026-11-20T12:00:00+01:00\n',
        b'prompt = "a mug"\n[schedule]\ncron = "*/5,7 1-3 29 feb *"\n',
    ),
    "resume": (b'picks = [1, 4]\nfrom = "detect"\nforce = true\n[stage.detect]\nlabel = "mug"\n', b""),
    "use": (b"take = 1\npicture = 1\n", b""),
    "picture": _pictures(),
    "journal": (JOURNAL, ENDED),
    "status": (b'schema = 1\njob = "mug_take01"\nstate = "cancelled"\n',),
    "work": (_work(),),
    "active": (_ACTIVE.dump(), _ACTIVE.model_copy(update={"by": "use", "picture": 1}).dump()),
    "sidecar": (record.dump(samples.record_of()),),
    "embedded": tuple(
        encoding.encode(samples.picture(), samples.record_of(), encoding.Encoding(format=form)).data
        for form in ("png", "jpeg", "webp")
    ),
    "note": (_NOTE.dump(),),
    "settings": (
        (
            b'default_preset = "noise"\nmodels_dir = "~/models"\nthreads = 2\n[inbox]\nsettle_s = 0.5\n'
            b'allowed_roots = ["/srv/photos"]\n[worker]\nvram_gb = 20.5\n'
        ),
    ),
    "preset": _files("presets"),
    "pipeline": _files("presets/pipelines"),
}
