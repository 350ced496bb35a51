"""What lies in an inbox and is no job: pictures of jobs, litter, and names with something unreadable behind them."""

import os
import stat
from pathlib import Path
from typing import Final

import soak_texts
from soak_crowd import WAYS, Crowd, rename

#: As editors, browsers, desktops and sync programs name them; {} is what tells one from another.
LITTER: Final = (
    ".{}.toml", "~{}.toml", "#{}.toml#", "._{}.toml", "~${}.toml", "{}.toml~", ".{}.toml.swp", "{}.toml.swx",
    "{}.toml.tmp", "{}.temp", "{}.part", "{}.toml.partial", "{}.toml.filepart", "{}.toml.crdownload", "{}.download",
    "{}.toml.opdownload", "{}.toml.bak", "{}.toml.orig", ".~lock.{}.toml#", "{}.lock",
    "{}.sync-conflict-20261120-134455-ABCDEFG.toml", "{}.toml.!sync", ".goutputstream-{}", "{}.toml.lnk",
    "{} (conflicted copy 2026-11-20).toml", "{} (Ada's conflicted copy).toml", "{}.docx", "{}", "{}.toml.gz",
    "{}.status.toml", "{}.png", "{}.csv", "{}.txt", "{}.\udcfe", "Thumbs.db", "desktop.ini", ".DS_Store",
)  # fmt: skip
#: Folders whose content is nobody's business.
LITTER_FOLDERS: Final = ("@eaDir", ".sync", "$RECYCLE.BIN", "~{}", "a/b/c/too/deep")


def leave_litter(crowd: Crowd) -> None:
    """It would be a job by its text, but is none by its name."""
    data = soak_texts.plain(crowd.token(), crowd.chance).data
    if crowd.chance.random() < 0.15:
        folder = crowd.inbox / crowd.chance.choice(LITTER_FOLDERS).format(crowd.token())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{crowd.token()}.toml"
    else:
        path = crowd.place() / crowd.chance.choice(LITTER).format(crowd.token())
    path.write_bytes(data)
    crowd.drops += 1
    crowd.oracle.lies(path, data)


def leave_unreadable(crowd: Crowd) -> None:
    """The name is that of a job, but what lies behind it is not to be read."""
    path = crowd.place() / f"{crowd.token()}.toml"
    crowd.chance.choice(_UNREADABLE)(crowd, path)
    crowd.drops += 1


def _folder(crowd: Crowd, path: Path) -> None:
    path.mkdir()
    inside = path / "job.toml"
    inside.write_text('prompt = "in a folder"\n')
    crowd.oracle.lies(inside, inside.read_bytes())


def _pipe(crowd: Crowd, path: Path) -> None:
    os.mkfifo(path)
    crowd.oracle.lies(path)


def _socket(crowd: Crowd, path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)
    crowd.oracle.lies(path)


def _link_to_a_job(crowd: Crowd, path: Path) -> None:
    target = crowd.beside()
    target.write_bytes(soak_texts.plain(crowd.token(), crowd.chance).data)
    path.symlink_to(target)
    crowd.oracle.lies(path, target.read_bytes())


def _link_to_nothing(crowd: Crowd, path: Path) -> None:
    path.symlink_to("nowhere.toml")
    crowd.oracle.lies(path)


def _closed(crowd: Crowd, path: Path) -> None:
    """It may not be read, until somebody sees to that; root may read it all the same."""
    drop = crowd.text()
    beside = crowd.beside()
    beside.write_bytes(drop.data)
    beside.chmod(0)
    beside.rename(path)
    drop.history.append(f"closed {path.name}")

    def let_read() -> None:
        if path.exists():
            path.chmod(0o644)

    crowd.later(crowd.soon(1.0), let_read)


def _too_large(crowd: Crowd, path: Path) -> None:
    """Mostly a hole."""
    beside = crowd.beside()
    beside.write_text('prompt = "a mug"\n')
    os.truncate(beside, 9 * 1024 * 1024)
    beside.rename(path)
    crowd.oracle.lies(path)


_UNREADABLE: Final = (_folder, _pipe, _socket, _link_to_a_job, _link_to_nothing, _closed, _too_large)


# --- jobs with pictures ---


def drop_with_picture(crowd: Crowd) -> None:
    """The picture is there before the job, or comes late, perhaps in pieces; it is copied, and stays."""
    token = crowd.token()
    drop = crowd.oracle.expect(soak_texts.edit(token, f"{token}.png"))
    folder = crowd.place()
    path, data = folder / f"{token}.png", soak_texts.picture(crowd.chance)
    if crowd.chance.random() < 0.2:
        data = soak_texts.broken_picture(crowd.chance)
        drop.ends = {"failed"}
    crowd.oracle.lies(path, data)
    late_s = crowd.chance.choice((0.0, crowd.soon(2.0)))
    drop.history.append(f"its picture comes {late_s:.1f} s late")

    def bring() -> None:
        crowd.drops += 1
        crowd.chance.choice(WAYS)(crowd, path, data)

    if not late_s:
        bring()
    crowd.drop(folder / f"{token}.toml", drop)
    if late_s:
        crowd.later(late_s, bring)


def drop_without_picture(crowd: Crowd) -> None:
    """The picture never comes; in the end somebody cancels the job."""
    token = crowd.token()
    drop = crowd.oracle.expect(soak_texts.edit(token, "nobody-drops-this.png"))
    drop.ends = {"cancelled"}
    crowd.drop(crowd.place() / f"{token}.toml", drop)
    crowd.last_words.append(crowd.inbox / f"{token}.cancel")


def drop_pictures(crowd: Crowd) -> None:
    """A lane in which each picture is a job."""
    tree = crowd.beside()
    tree.mkdir()
    (tree / "folder.toml").write_text(soak_texts.PICTURE_LANE)
    lane = crowd.inbox / f"pictures-{tree.name}"

    def bring() -> None:
        token = crowd.token()
        drop = crowd.oracle.expect(soak_texts.bare(token))
        drop.history.append(f"a picture in {lane.name}")
        crowd.drops += 1
        folder = lane if lane.exists() else tree
        rename(crowd, folder / f"{token}.png", soak_texts.picture(crowd.chance))

    for _ in range(crowd.chance.randint(0, 3)):
        bring()
    tree.rename(lane)
    crowd.oracle.lies(lane / "folder.toml", soak_texts.PICTURE_LANE.encode())
    for _ in range(crowd.chance.randint(1, 3)):
        crowd.later(crowd.soon(1.0), bring)
