"""Whatever is dropped, the daemon says what became of it and goes on."""

import os
import socket
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Serve, Served, Spawn, Workspace
from painted import PaintedEngine
from PIL import Image
from waiting import wait_until

from hotfolder import names
from hotfolder.meaning import JobName, meaning_of

GOOD = b'prompt = "a mug"\nsteps = 2\nwidth = 64\nheight = 64\n'
PLAN = b"""schema = 1
type = "plan"
job = "x_take01"
preset = "noise"
seed = 1

[keys]
prompt = "a mug"
width = 64
height = 64
steps = 2

[presets.noise]
kind = "text2img"
model = { repo = "hotfolder/noise", dtype = "float32" }

[[stages]]
stage = "generate"
id = "generate"

[[stages]]
stage = "export"
id = "export"
"""


def lay(data: bytes) -> Callable[[Path], None]:
    """A file, written beside and renamed."""

    def make(path: Path) -> None:
        beside = path.with_name(f".{abs(hash(path))}.tmp")
        beside.write_bytes(data)
        beside.rename(path)

    return make


def lay_socket(path: Path) -> None:
    # Its path may have 108 bytes: too few for a temporary folder.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def lay_device(path: Path) -> None:
    # Only root may.
    with suppress(PermissionError):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def lay_link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def lay_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def with_picture(picture: Callable[[Path], None], text: str = "") -> Callable[[Path], None]:
    """A job that names the picture beside it."""

    def make(path: Path) -> None:
        name = f"{path.stem}.png"
        picture(path.with_name(name))
        lay(f'prompt = "a mug"\nsteps = 2\nimage = "{name}"\n{text}'.encode())(path)

    return make


def png(path: Path) -> None:
    Image.effect_noise((64, 64), 99).convert("RGB").save(path, format="PNG")


def half_png(path: Path) -> None:
    png(path)
    os.truncate(path, path.stat().st_size // 2)


def bomb(path: Path) -> None:
    """A PNG of a few bytes that says it has 900 million pixels."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Something dropped, and what must become of it."""

    file: str
    make: Callable[[Path], None]
    #: The state its job ends in; "" where it never becomes one.
    state: str = ""
    #: The code of the error; of what is left alone, a part of the reason.
    why: str = ""


def rejected(file: str, data: bytes, why: str) -> Drop:
    return Drop(file=f"{file}.toml", make=lay(data), state="rejected", why=why)


def accepted(file: str, data: bytes = GOOD) -> Drop:
    return Drop(file=file, make=lay(data), state="completed")


def failed(file: str, make: Callable[[Path], None], why: str) -> Drop:
    return Drop(file=f"{file}.toml", make=make, state="failed", why=why)


def ignored(file: str, make: Callable[[Path], None], why: str) -> Drop:
    return Drop(file=file, make=make, why=why)


DROPS = [
    rejected("empty", b"", "missing-key"),
    rejected("spaces", b"   \n\n", "missing-key"),
    rejected("broken", b'prompt = "a mug\n', "bad-syntax"),
    rejected("truncated", b'prompt = "a mug"\nsteps = 2\nwid', "bad-syntax"),
    rejected("utf16", GOOD.decode().encode("utf-16"), "bad-encoding"),
    rejected("latin1", 'prompt = "Ölbild"\n'.encode("latin-1"), "bad-encoding"),
    rejected("nul", b'prompt = "a\0b"\n', "bad-syntax"),
    rejected("large", GOOD + b"# x\n" * 500_000, "too-large"),
    rejected("dotted", b"a." * 20_000 + b"a = 1\n", "bad-syntax"),
    rejected("nested", b"a = " + b"[" * 30_000, "bad-syntax"),
    rejected("quotes", b'a = "' + b'\\"' * 30_000, "bad-syntax"),
    rejected("nan", GOOD + b"guidance = nan\n", "bad-value"),
    rejected("digits", GOOD + b"seed = " + b"9" * 5_000 + b"\n", "bad-value"),
    rejected("unknown", GOOD + b"hieght = 3\n", "unknown-key"),
    rejected("type", b"prompt = 3\n", "bad-value"),
    rejected("range", b'prompt = "a mug"\nsteps = 0\n', "bad-value"),
    rejected("model", GOOD + b'model = "evil/pickle"\n', "unknown-key"),
    rejected("preset", GOOD + b'preset = "../../etc/passwd"\n', "unknown-preset"),
    rejected("traversal", GOOD + b'image = "../../etc/passwd"\n', "forbidden-path"),
    rejected("absolute", GOOD + b'image = "/etc/passwd"\n', "forbidden-path"),
    rejected("at", GOOD + b'image = "@mug/../cup"\n', "forbidden-path"),
    rejected("at-what", GOOD + b'image = "@"\n', "bad-value"),
    rejected("at-odd", GOOD + b'image = "@mug/x"\n', "bad-value"),
    rejected("here", GOOD + b'image = "./"\n', "forbidden-path"),
    rejected("escape", GOOD + b'"\\u001b[31m\\u202e" = 1\n', "unknown-key"),
    rejected("evil-plan", PLAN.replace(b"hotfolder/noise", b"evil/pickle"), "wrong-model"),
    rejected("huge-plan", PLAN.replace(b"width = 64", b"width = 1000000"), "bad-value"),
    rejected("newer-plan", PLAN.replace(b"schema = 1", b"schema = 2"), "newer-schema"),
    rejected("huge-plan-stage", PLAN.replace(b'id = "generate"', b'id = "generate"\nwidth = 1000000'), "bad-value"),
    rejected("odd-plan", PLAN + b"\n[[sources]]\nrole = 1\n", "bad-value"),
    rejected("typed", GOOD + b'type = ["plan"]\n', "unknown-key"),
    accepted("bom.toml", b"\xef\xbb\xbf" + GOOD),
    accepted("crlf.toml", GOOD.replace(b"\n", b"\r\n")),
    accepted("no-newline.toml", GOOD.rstrip()),
    accepted("comment.toml", GOOD + "# \u2028 Ölbild \U0001f44d\n".encode()),
    accepted("plan.toml", PLAN),
    accepted(f"{'x' * 250}.toml"),
    accepted(f"{'ü' * 125}.toml"),
    accepted("new\nline.toml"),
    accepted("caf\udce9\udcff.toml"),
    accepted("\x1b[31mred\x07.toml"),
    accepted("-rf.toml"),
    accepted("con.toml"),
    accepted("windows.toml.txt"),
    accepted("SHOUTED.TOML"),
    accepted("-$(reboot)`;.toml"),
    failed("half", with_picture(half_png), "bad-picture"),
    failed("bomb", with_picture(bomb), "bad-picture"),
    failed("text", with_picture(lay(b"this is a picture, honestly\n")), "bad-picture"),
    failed("video", with_picture(lay(b"\0\0\0\x20ftypisom" + bytes(5000))), "bad-picture"),
    failed("none", with_picture(lay(b"")), "bad-picture"),
    failed("linked", with_picture(lay_link("/etc/passwd")), "forbidden-path"),
    failed("piped", with_picture(os.mkfifo), "forbidden-path"),
    failed("folded", with_picture(os.mkdir), "forbidden-path"),
    failed("mismatched", with_picture(png, 'preset = "noise-fill"\nmask = "small.png"\n'), "bad-picture"),
    ignored("pipe.toml", os.mkfifo, "a pipe"),
    ignored("socket.toml", lay_socket, "a socket"),
    ignored("device.toml", lay_device, "a device"),
    ignored("link.toml", lay_link("/etc/passwd"), "a symbolic link"),
    ignored("dangling.toml", lay_link("/nothing"), "a symbolic link"),
    ignored("folder-x.toml", os.mkdir, "a folder with the name of a job file"),
    ignored("endless.toml", lay_sparse, "1099511627776 bytes"),
    ignored("pipe.resume", os.mkfifo, "a pipe"),
    ignored("link.cancel", lay_link("/etc/passwd"), "a symbolic link"),
    ignored("mug.toml.swp", lay(GOOD), "left behind"),
    ignored("mug.toml~", lay(GOOD), "left behind"),
    ignored(".mug.toml.tmp", lay(GOOD), "hidden or temporary"),
    ignored("#mug.toml#", lay(GOOD), "hidden or temporary"),
    ignored("mug.toml.part", lay(GOOD), "left behind"),
    ignored("mug.sync-conflict-20261120-ABC.toml", lay(GOOD), "left behind"),
    ignored("desktop.ini", lay(GOOD), "left behind"),
    ignored("Folder.toml", lay(b"hold = true\n"), "folder.toml"),
    ignored("notes.txt", lay(GOOD), "not a job file"),
    ignored("mug.status.toml", lay(GOOD), "a status file"),
    ignored("other.rejected.toml", lay(GOOD), "mend it"),
    ignored("bad\udcffname\n.xyz", lay(GOOD), "not a job file"),
    ignored("clip.png", lay(b"video"), "a picture"),
]


@pytest.fixture(scope="module")
def dropped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace into which everything was dropped at once, and after it a job like any other."""
    workspace = Workspace(tmp_path_factory.mktemp("hostile") / "work")
    served = Served(workspace.settings(), PaintedEngine())
    workspace.picture("small.png", size=(8, 8))
    for drop in DROPS:
        drop.make(workspace.inbox / drop.file)
    lay(GOOD)(workspace.inbox / "after.toml")
    workspace.wait_for("after_take01", "completed", timeout_s=60)
    yield workspace
    served.stop()


@pytest.mark.parametrize("drop", DROPS, ids=lambda drop: names.shown(drop.file)[:40])
def test_a_drop_of_any_kind_has_its_end_or_its_reason(dropped: Workspace, drop: Drop) -> None:
    path = dropped.inbox / drop.file
    if not drop.state:
        if drop.make is lay_device and not path.exists():
            pytest.skip("only root makes devices")
        wait_until(lambda: names.shown(drop.file) in reasons(dropped), what=f"{reasons(dropped)}")
        assert drop.why in reasons(dropped)[names.shown(drop.file)]
        assert os.path.lexists(path), "it is left alone"
        return
    means = meaning_of(drop.file)
    assert isinstance(means, JobName)
    job = f"{means.name}_take01"
    status = dropped.wait_for(job)
    assert status["state"] == drop.state, status
    assert status.get("error", {}).get("code", "") == drop.why, status
    assert not os.path.lexists(path), "it was taken"
    assert bool(list((dropped.outputs / job).glob("*.png"))) == (drop.state == "completed")
    note = dropped.inbox / f"{means.name}.rejected.toml"
    assert note.exists() == (drop.state == "rejected")


def reasons(workspace: Workspace) -> dict[str, str]:
    """Why things in the inbox were left alone, as outputs/status.toml says."""
    return {one["name"]: one["why"] for one in workspace.daemon_status().get("ignored", [])}


# --- what needs a daemon of its own ---


@pytest.mark.parametrize("name", ["pause", "pause.txt"])
def test_pause_stops_everything_also_as_windows_names_it(workspace: Workspace, serve: Serve, name: str) -> None:
    (workspace.inbox / name).touch()
    serve()
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "queued")
    wait_until(lambda: workspace.daemon_status().get("state") == "paused")
    assert workspace.state("mug_take01") == "queued"
    (workspace.inbox / name).unlink()
    workspace.wait_for("mug_take01", "completed")


def test_a_cancel_that_windows_named_cancels(workspace: Workspace, serve: Serve) -> None:
    (workspace.inbox / "pause").touch()
    serve()
    workspace.drop("mug.toml")
    workspace.wait_for("mug_take01", "queued")
    workspace.drop("mug.cancel.txt", "")
    workspace.wait_for("mug_take01", "cancelled")
    wait_until(lambda: not (workspace.inbox / "mug.cancel.txt").exists())


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, lay_link("/dev/zero"), lay_link("/etc/passwd"), lay_sparse, lay(b"hold = \n")],
    ids=["pipe", "folder", "endless", "link", "sparse", "broken"],
)
def test_defaults_of_a_lane_that_cannot_be_read_stop_that_lane_only(
    workspace: Workspace, serve: Serve, make: Callable[[Path], None]
) -> None:
    serve()
    (workspace.inbox / "night").mkdir()
    make(workspace.inbox / "night/folder.toml")
    workspace.drop("mug.toml", lane="night")
    workspace.drop("cup.toml")
    status = workspace.wait_for("mug_take01")
    assert status["state"] == "rejected", status
    assert "night/folder.toml" in status["error"]["message"]
    wait_until(lambda: any("night/folder.toml" in text for text in workspace.daemon_status().get("wrong", [])))
    workspace.wait_for("cup_take01", "completed")


def lay_all(*makers: tuple[str, Callable[[Path], None]]) -> Callable[[Path], None]:
    """Several things in one folder."""

    def make(folder: Path) -> None:
        for name, one in makers:
            one(folder / name)

    return make


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lay_all(("mug.rejected.toml", os.mkfifo)), "mug-2.rejected.toml"),
        (lay_all(("mug.rejected.toml", os.mkdir)), "mug-2.rejected.toml"),
        (lay_all(("mug.rejected.toml", lay_link("/dev/zero"))), "mug-2.rejected.toml"),
        (lay_all(("mug.rejected.toml", lay_sparse)), "mug-2.rejected.toml"),
        (lay_all((".mug.rejected.toml.tmp", os.mkfifo)), None),
        (lay_all((".mug.rejected.toml.tmp", lay_link("../victim"))), None),
    ],
    ids=["pipe", "folder", "endless", "sparse", "pipe beside", "link beside"],
)
def test_what_lies_where_a_refusal_would_be_written_is_neither_read_nor_written_through(
    workspace: Workspace, serve: Serve, make: Callable[[Path], None], note: str | None
) -> None:
    (workspace.root / "victim").write_text("mine")
    make(workspace.inbox)
    serve()
    workspace.drop("mug.toml", "prompt = 3\n")
    workspace.wait_for("mug_take01", "rejected")
    assert note is None or (workspace.inbox / note).read_text().startswith("#! ")
    assert (workspace.root / "victim").read_text() == "mine"
    workspace.drop("cup.toml")
    workspace.wait_for("cup_take01", "completed")


def test_a_resume_of_any_size_is_answered(workspace: Workspace, serve: Serve) -> None:
    serve()
    workspace.drop("mug.toml", 'prompt = "a mug"\nimage = "mug.png"\n')
    workspace.drop("mug.cancel", "")
    workspace.wait_for("mug_take01", "cancelled")
    lay_sparse(workspace.inbox / "mug.resume")
    wait_until(lambda: not (workspace.inbox / "mug.resume").exists())
    assert "at most 65536 are accepted" in workspace.status("mug_take01")["notices"][0]["text"]


def test_a_lane_whose_name_is_no_text_holds_its_jobs_like_any_other(workspace: Workspace, serve: Serve) -> None:
    serve()
    lane = "n\udcffight\n\x1b[31m"
    workspace.drop("folder.toml", "hold = true\n", lane=lane)
    workspace.drop("mug.toml", lane=lane)
    status = workspace.wait_for("mug_take01", "held")
    assert status["held_by"].isprintable()
    (workspace.inbox / lane / "folder.toml").unlink()
    workspace.wait_for("mug_take01", "completed")


@pytest.fixture
def without_rights(needs_tool: Callable[[str], str]) -> list[str]:
    """What to run a program with so that rights of files count for it, which root is free of."""
    if os.geteuid() != 0:
        return []
    return [needs_tool("setpriv"), "--bounding-set", "-dac_override,-dac_read_search,-lease"]


def test_what_may_not_be_read_is_told_and_the_rest_goes_on(
    workspace: Workspace, spawn: Spawn, without_rights: list[str]
) -> None:
    process = spawn(before=without_rights, env={"INBOX_SOURCE_TIMEOUT_S": "0.5"})
    for lane in ("closed", "odd"):
        (workspace.inbox / lane).mkdir()
    workspace.drop("secret.toml").chmod(0)
    workspace.picture("mine.png").chmod(0)
    (workspace.inbox / "odd/folder.toml").touch(0)
    (workspace.inbox / "closed").chmod(0)
    workspace.drop("pictured.toml", 'prompt = "a mug"\nimage = "mine.png"\n')
    workspace.drop("laned.toml", lane="odd")
    process.wait_until_ready()
    workspace.drop("good.toml")
    workspace.wait_for("good_take01", "completed")
    status = workspace.wait_for("pictured_take01", "failed")
    assert (status["error"]["code"], "mine.png" in status["error"]["message"]) == ("missing-picture", True)
    status = workspace.wait_for("laned_take01", "rejected")
    assert "odd/folder.toml cannot be read" in status["error"]["message"]
    wait_until(lambda: {"secret.toml", "closed"} <= reasons(workspace).keys(), what=process.log)
    for name in ("secret.toml", "closed"):
        assert reasons(workspace)[name] == "cannot be read: Permission denied"
    (workspace.inbox / "closed").chmod(0o755)
    (workspace.inbox / "secret.toml").chmod(0o644)
    workspace.wait_for("secret_take01", "completed")
