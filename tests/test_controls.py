"""Control files, one by one: what was dropped is done, and only what was done is removed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from clocks import SetClock
from conftest import Workspace
from painted import PaintedEngine

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
    control = ControlName(name="mug", take=None, control=Control.CANCEL)
    return ControlFile(path=path, control=control, mtime_ns=path.stat().st_mtime_ns)


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
    spool.meanwhile = lambda: os.utime(workspace.drop("mug.cancel", ""), ns=(first.mtime_ns + 1, first.mtime_ns + 1))
    controls.act([first], set())
    assert path.exists(), "nobody has read this one"
    spool.meanwhile = lambda: None
    controls.act([seen(path)], set())
    clock.turn(PATIENCE_S)
    controls.act([seen(path)], set())
    assert not path.exists()
    assert len(controls.notices) == 2
    shop.gallery.close()
