"""The model of what a power cut may leave, on histories made by hand; and that the recorder misses nothing."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Workspace
from power_cut_history import ROOT, File, History, Names, Operation, Resize, Sync, Tree, Write, digest, replay
from power_cut_history import read_tree as read
from power_cut_history import write_tree as put
from power_cut_model import Model, ordered, weak
from power_cut_record import NotRecorded, record

#: Nodes of the histories below.
FOLDER, OLD, NEW = 1, 2, 3


def history(*operations: Operation, settled: int = 0) -> History:
    return History(operations=operations, settled=settled, folders=frozenset({ROOT, FOLDER}), times={})


def name(text: str, node: int | None, folder: int = ROOT) -> Names:
    return Names(changes=(((folder, text), node),))


def renamed(before: str, after: str, node: int) -> Names:
    return Names(changes=(((ROOT, after), node), ((ROOT, before), None)))


def written(node: int, text: str, offset: int = 0) -> Write:
    return Write(node=node, offset=offset, data=text.encode())


def left(model: Model, told: History) -> set[str]:
    """Return what may be left after all of a history: "name=data" of each file, and the folders."""
    choices = model(told, len(told.operations), lambda _: False)
    return {shown(tree) for tree in choices.all()}


def shown(tree: Tree) -> str:
    return " ".join(f"{path}/" if file is None else f"{path}={file.data.decode()}" for path, file in tree.items())


def test_a_file_that_was_not_flushed_is_empty_or_torn_and_its_name_may_be_missing() -> None:
    told = history(name("a", NEW), written(NEW, "data"))
    assert left(ordered, told) == {"a=", "a=data"}
    assert left(weak, told) == {"", "a=", "a=da", "a=\0\0\0\0", "a=data"}


def test_a_flushed_file_keeps_its_data_but_on_a_weak_file_system_not_its_name() -> None:
    told = history(name("a", NEW), written(NEW, "data"), Sync(node=NEW, began=2))
    assert left(ordered, told) == {"a=data"}
    assert left(weak, told) == {"", "a=data"}


def test_a_flushed_folder_keeps_its_names_but_not_the_data_of_its_files() -> None:
    told = history(name("a", NEW), written(NEW, "data"), Sync(node=ROOT, began=2))
    assert left(ordered, told) == {"a=", "a=data"}
    assert left(weak, told) == {"a=", "a=da", "a=\0\0\0\0", "a=data"}


def test_what_was_done_while_a_flush_ran_is_not_covered_by_it() -> None:
    told = history(name("a", NEW), written(NEW, "data"), Sync(node=NEW, began=1))
    assert "a=" in left(ordered, told)
    assert "a=" in left(weak, told)


def replaced(*, flushed: bool) -> History:
    """Return the history of a file that is replaced by a new one, written beside it and renamed over it."""
    sync = [Sync(node=NEW, began=4)] if flushed else []
    return history(
        name("a", OLD),
        written(OLD, "old"),
        name("b", NEW),
        written(NEW, "new"),
        *sync,
        renamed("b", "a", NEW),
        settled=2,
    )


def test_a_file_that_is_replaced_without_a_flush_may_be_empty_under_its_name() -> None:
    assert left(ordered, replaced(flushed=False)) == {"a=", "a=new"}
    assert "a=" in left(weak, replaced(flushed=False))


def test_a_file_that_is_replaced_after_a_flush_is_the_old_or_the_new_one() -> None:
    """On a weak file system each half of the rename may be missing."""
    assert left(ordered, replaced(flushed=True)) == {"a=new"}
    assert left(weak, replaced(flushed=True)) == {"a=old", "a=old b=new", "a=new", "a=new b=new"}


def test_names_reach_an_ordered_disk_in_their_order_and_a_weak_one_in_any() -> None:
    told = history(name("a", OLD), name("b", NEW))
    assert left(ordered, told) == {"a= b="}
    assert {shown(tree) for cut in range(3) for tree in ordered(told, cut, lambda _: False).all()} == {
        "",
        "a=",
        "a= b=",
    }
    assert left(weak, told) == {"", "a=", "b=", "a= b="}


def test_what_was_done_to_one_name_stays_in_order() -> None:
    told = history(
        name("a", OLD), written(OLD, "x"), Sync(node=OLD, began=2), name("a", None), Sync(node=ROOT, began=4)
    )
    assert left(weak, told) == {""}


def test_a_folder_that_lost_its_name_takes_what_is_in_it_along() -> None:
    told = history(name("f", FOLDER), name("a", NEW, FOLDER), Sync(node=FOLDER, began=2))
    assert left(weak, told) == {"", "f/ f/a="}


def test_a_folder_that_two_names_lead_to_keeps_the_first() -> None:
    told = history(name("f", FOLDER), renamed("f", "g", FOLDER), settled=1)
    assert left(ordered, told) == {"g/"}
    assert left(weak, told) == {"f/", "g/", ""}


def test_lines_that_are_added_end_anywhere_on_a_weak_file_system() -> None:
    told = history(name("a", OLD), written(OLD, "1\n"), written(OLD, "2\n", 2), settled=2)
    assert left(ordered, told) == {"a=1\n", "a=1\n2\n"}
    assert left(weak, told) == {"a=1\n", "a=1\n2", "a=1\n\0\0", "a=1\n2\n"}


def test_a_long_file_ends_at_a_page_on_an_ordered_file_system() -> None:
    told = history(name("a", NEW), written(NEW, "x" * 9000))
    assert {len(text) - 2 for text in left(ordered, told)} == {0, 4096, 8192, 9000}


def test_a_file_that_is_cut_off_may_still_be_whole() -> None:
    told = history(name("a", OLD), written(OLD, "data"), Resize(node=OLD, size=0), settled=2)
    assert left(ordered, told) == left(weak, told) == {"a=data", "a="}


def test_of_each_model_every_state_after_all_was_flushed_is_the_one_that_stands() -> None:
    told = history(name("a", NEW), written(NEW, "data"), Sync(node=NEW, began=2), Sync(node=ROOT, began=3))
    assert left(ordered, told) == left(weak, told) == {"a=data"} == {shown(replay(told))}


def test_views_are_new_old_or_torn_all_together() -> None:
    told = history(name("a", OLD), name("b", NEW))
    choices = weak(told, 2, lambda _: True)
    assert {shown(tree) for tree in choices.all()} == {"", "a= b="}


def test_a_file_is_no_view_if_one_of_its_names_is_none() -> None:
    choices = weak(replaced(flushed=False), 5, lambda path: path == "b")
    contents = {shown(tree).partition(" ")[0] for tree in choices.all()}
    assert contents == {"a=old", "a=", "a=n", "a=\0\0\0", "a=new"}


def test_a_tree_that_is_put_on_disk_is_read_the_same(tmp_path: Path) -> None:
    first, second = Workspace(tmp_path / "first"), Workspace(tmp_path / "second")
    first.drop("mug.toml", "x")
    twin = File(b"twin")
    tree = {
        **read(first.root),
        "c": twin,
        "d": twin,
        "a/b": File(b"\0\xff"),
        "a": None,
        ".hotfolder/live/IDENTITY": None,
    }
    put(tree, second.root)
    assert (second.root / "c").samefile(second.root / "d")
    assert digest(read(second.root) | {".hotfolder": None}) == digest(
        tree | {".hotfolder": None, ".hotfolder/live": None}
    )


#: A program that does to files what Python can do to them, by several threads.
BUSY = """
import os, shutil, sys, threading
from pathlib import Path
root = Path(sys.argv[1])
def work(number):
    folder = root / f"f{number}"
    folder.mkdir()
    (folder / "a").write_text("some text" * number)
    with (folder / "a").open("a") as file:
        file.write("more")
    os.link(folder / "a", folder / "b")
    (folder / "b").rename(folder / "c")
    with (folder / "d").open("wb", buffering=0) as file:
        file.write(b"x" * 10); file.seek(3); file.write(b"y"); file.truncate(7); os.fsync(file.fileno())
        os.pwrite(file.fileno(), b"z", 20)
    (folder / "e").mkdir(); (folder / "e" / "f").touch(); shutil.rmtree(folder / "e")
    (root / "jobs_inbox" / "old").exists()
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
(root / "jobs_inbox" / "old").unlink()
"""


@pytest.fixture
def run(tmp_path: Path, needs_tool: Callable[[str], str]) -> Callable[[str], tuple[History, Tree]]:
    """Records a program; what it takes down, and what then stands on disk."""

    def recorded(program: str) -> tuple[History, Tree]:
        workspace = Workspace(tmp_path / "work")
        workspace.drop("old", "dropped before")
        strace = needs_tool("strace")
        if subprocess.run([strace, "true"], check=False, capture_output=True).returncode:
            pytest.skip("strace may not trace here")
        command = [sys.executable, "-c", program, str(workspace.root)]
        told = record(strace, workspace.root, command, {})
        found = read(workspace.root)
        shutil.rmtree(workspace.root)
        return told, found

    return recorded


def test_the_recorder_takes_down_all_that_is_done_to_files(run: Callable[[str], tuple[History, Tree]]) -> None:
    told, found = run(BUSY)
    assert found["f3/a"] == File(b"some text" * 3 + b"more")
    assert found["f3/d"] == File(b"xxxyxxx" + bytes(13) + b"z")
    assert digest(replay(told)) == digest(found)
    flushes = [operation for operation in told.operations if isinstance(operation, Sync)]
    assert len(flushes) == 4


@pytest.mark.parametrize(
    "program",
    [
        "import os, sys; os.symlink('x', sys.argv[1] + '/link')",
        "import os, sys; os.truncate(sys.argv[1] + '/jobs_inbox/old', 3)",
        "import os, sys; os.writev(os.open(sys.argv[1] + '/new', os.O_CREAT | os.O_WRONLY), [b'a', b'b'])",
        "import mmap, os, sys; mmap.mmap(os.open(sys.argv[1] + '/jobs_inbox/old', os.O_RDWR), 4)[:1] = b'x'",
        "import os, sys; os.chdir(sys.argv[1]); open('new', 'w').write('x')",
    ],
)
def test_the_recorder_refuses_what_it_does_not_know(run: Callable[[str], tuple[History, Tree]], program: str) -> None:
    with pytest.raises(NotRecorded, match=r"known|mapped"):
        run(program)
