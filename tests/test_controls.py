"""Control files, one by one: what was dropped is done, and only what was done is removed."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import SetClock
from conftest import Serve, Workspace
from painted import PaintedEngine
from waiting import wait_until

from hotfolder.claim import Seen, remove_control
from hotfolder.controls import PATIENCE_S, Controls
from hotfolder.gallery import Gallery
from hotfolder.line import Line
from hotfolder.meaning import Control, ControlName
from hotfolder.prepare import Preparer
from hotfolder.presets import Presets
from hotfolder.scanner import ControlFile
from hotfolder.settle import Settler
from hotfolder.shop import Shop
from hotfolder.spool import Spool
from hotfolder.takes import Takes
from hotfolder.thumbs import Thumbs


class Watched(Spool):
    """Tells when somebody looks for the takes that a control file means: it is being carried out."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def newest(self, stem: str) -> Iterator[str]:
        self.meanwhile()
        return super().newest(stem)


def seen(path: Path) -> ControlFile:
    return ControlFile(seen=as_it_is(path), control=ControlName(name="mug", take=None, control=Control.CANCEL))


def as_it_is(path: Path) -> Seen:
    found = path.lstat()
    return Seen(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def test_a_control_file_that_is_dropped_again_while_it_is_carried_out_is_the_next_one(workspace: Workspace) -> None:
    settings, clock = workspace.settings(), SetClock()
    spool = Watched(settings, clock, "run-1")
    shop = Shop(
        spool=spool,
        takes=Takes(spool),
        line=Line(clock),
        gallery=Gallery(settings.cache_dir, settings.outputs_dir),
        thumbs=Thumbs(cache=settings.cache_dir / "thumbs"),
        engine=PaintedEngine(),
        clock=clock,
        stopping=lambda: False,
    )
    controls = Controls(shop, Preparer(shop, Presets.of(settings.presets_dir), Settler(clock, 0.0, local=True)))
    path = workspace.drop("mug.cancel", "")
    first = seen(path)
    controls.act([first], set())
    assert path.exists(), "it waits for a job of its name"
    clock.turn(PATIENCE_S)
    spool.meanwhile = lambda: os.utime(
        workspace.drop("mug.cancel", ""), ns=(first.seen.mtime_ns + 1, first.seen.mtime_ns + 1)
    )
    controls.act([first], set())
    assert path.exists(), "nobody has read this one"
    spool.meanwhile = lambda: None
    controls.act([seen(path)], set())
    clock.turn(PATIENCE_S)
    controls.act([seen(path)], set())
    assert not path.exists()
    assert len(controls.notices) == 2
    shop.gallery.close()


NAMES = ["mug.cancel", "mug_take02.toml.resume", "m" * 248 + ".cancel"]


@pytest.mark.parametrize("name", NAMES)
def test_one_that_was_acted_on_leaves_nothing(workspace: Workspace, name: str) -> None:
    acted_on = as_it_is(workspace.drop(name, "picks = [1]"))
    remove_control(acted_on)
    assert list(workspace.inbox.iterdir()) == []
    remove_control(acted_on)


@pytest.mark.parametrize("name", NAMES)
def test_one_that_is_dropped_again_in_the_last_instant_keeps_its_name(workspace: Workspace, name: str) -> None:
    acted_on = as_it_is(workspace.drop(name, "picks = [1]"))
    path = workspace.drop(name, "picks = [2, 3]")
    remove_control(acted_on)
    assert [one.name for one in workspace.inbox.iterdir()] == [name]
    assert path.read_text() == "picks = [2, 3]"


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_two_that_are_dropped_again_in_the_last_instant_the_newer_counts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    acted_on = as_it_is(workspace.drop("mug.resume", "picks = [1]"))
    workspace.drop("mug.resume", "picks = [2, 3]")
    link = os.link

    def drop_again(source: Path, target: Path) -> None:
        workspace.drop("mug.resume", "picks = [4, 5, 6]")
        if not links:
            raise OSError(errno.EPERM, "no hard links here")
        link(source, target)

    monkeypatch.setattr(os, "link", drop_again)
    remove_control(acted_on)
    assert [one.read_text() for one in workspace.inbox.iterdir()] == ["picks = [4, 5, 6]"]


def test_one_that_a_crash_left_without_its_name_is_acted_on_at_the_next_start(
    workspace: Workspace, serve: Serve
) -> None:
    workspace.drop("mug.toml", 'prompt = "mug"\n')
    workspace.drop(".hotfolder-mug.cancel.taking", "")
    serve()
    assert workspace.wait_for("mug_take01")["state"] == "cancelled"
    wait_until(lambda: list(workspace.inbox.iterdir()) == [], 20, "the cancel is taken")
