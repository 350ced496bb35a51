"""Hears what happens in the inbox, so that the next scan comes at once. Only a hint: lost events lose nothing."""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from watchdog.events import (
    EVENT_TYPE_ATTRIB,
    EVENT_TYPE_CLOSED,
    EVENT_TYPE_DELETED,
    EVENT_TYPE_MOVED,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch

from hotfolder import logs

#: More are not remembered: the files then settle by time.
_MAX_HINTS: Final = 100_000
#: What the kernel is asked for. Not that a file was opened or read: our own looks would drown the rest.
_EVENTS: Final = (
    FileMovedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileDeletedEvent,
    DirMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
)

_log = logs.logger(__name__)


class Hints:
    """What the watch heard since the last scan: which files were renamed into place, which were closed."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._lock = threading.Lock()
        self._moved_in: set[Path] = set()
        self._closed: set[Path] = set()

    def add(self, path: Path, *, moved_in: bool) -> None:
        """Note one file."""
        with self._lock:
            hints = self._moved_in if moved_in else self._closed
            if len(hints) < _MAX_HINTS:
                hints.add(path)

    def drop(self, path: Path) -> None:
        """Forget what was heard of a file: something else has happened to it since."""
        with self._lock:
            self._moved_in.discard(path)
            self._closed.discard(path)

    def take(self) -> tuple[set[Path], set[Path]]:
        """Return (moved in, closed) and forget both."""
        with self._lock:
            heard = self._moved_in, self._closed
            self._moved_in, self._closed = set(), set()
            return heard

    def keep(self, moved_in: set[Path], closed: set[Path]) -> None:
        """Remember hints for files that are not ready yet."""
        with self._lock:
            self._moved_in |= moved_in
            self._closed |= closed


class Watch:
    """One watchdog watch for the inbox and one for each lane. Used by one thread."""

    def __init__(self, hints: Hints, wake: threading.Event, *, on: bool = True) -> None:
        """Args: wake: set at every event. on: whether to watch at all; a network mount would deliver nothing."""
        self._on = on
        self._hints, self._wake = hints, wake
        self._observer: BaseObserver | None = None
        self._watches: dict[Path, tuple[tuple[int, int], ObservedWatch]] = {}
        #: Why no events come; "" while they do.
        self.problem = ""

    def follow(self, folders: list[Path]) -> bool:
        """Watch these folders and no others; one that was replaced or mounted over is watched anew.

        Returns: whether anything changed: what came into a new one before it was watched gave no event.
        """
        if not self._on:
            return False
        wanted = {}
        for folder in folders:
            with suppress(OSError):
                found = folder.stat()
                wanted[folder] = (found.st_dev, found.st_ino)
        if {folder: identity for folder, (identity, _) in self._watches.items()} == wanted:
            return False
        try:
            self._follow(wanted)
        except OSError as error:
            problem = f"no file events ({error.strerror or error}); the inbox is scanned by time only"
            if problem != self.problem:
                _log.warning("no_events", why=problem)
            self.problem = problem
            return False
        self.problem = ""
        return True

    def stop(self) -> None:
        """End the watch's threads."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _follow(self, wanted: dict[Path, tuple[int, int]]) -> None:
        if self._observer is None:
            # Imported here: the import starts nothing, but costs 60 ms that only a daemon needs.
            from watchdog.observers.inotify import InotifyObserver
            from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

            # It holds back the first half of each rename for half a second, and all that comes after it, unless it
            # happens to read the second half at the same moment. We need no pairs.
            InotifyMoveEventGrouper.delay = 0.0
            # Full events also tell of a file that was renamed in from outside, as a move without a source.
            self._observer = InotifyObserver(generate_full_events=True)
            self._observer.start()
        for folder in [known for known, (identity, _) in self._watches.items() if wanted.get(known) != identity]:
            _, watch = self._watches.pop(folder)
            with suppress(KeyError, OSError):
                self._observer.unschedule(watch)
        for folder, identity in wanted.items():
            if folder not in self._watches:
                handler = _Handler(folder, self._hints, self._wake)
                # A watch on a symbolic link would deliver nothing.
                watch = self._observer.schedule(
                    handler, str(folder.resolve()), recursive=False, event_filter=list(_EVENTS)
                )
                self._watches[folder] = (identity, watch)


class _Handler(FileSystemEventHandler):
    """Can never raise: an exception would end the dispatching thread for good."""

    def __init__(self, folder: Path, hints: Hints, wake: threading.Event) -> None:
        self._folder, self._hints, self._wake = folder, hints, wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        with suppress(Exception):
            path = self._folder / Path(os.fsdecode(event.src_path or "")).name
            if event.event_type == EVENT_TYPE_CLOSED:
                self._hints.add(path, moved_in=False)
            elif event.event_type != EVENT_TYPE_ATTRIB:
                self._hints.drop(path)
            if event.event_type == EVENT_TYPE_MOVED and event.dest_path:
                path = self._folder / Path(os.fsdecode(event.dest_path)).name
                self._hints.add(path, moved_in=True)
            moved_away = event.event_type == EVENT_TYPE_MOVED and not event.dest_path
            left = moved_away or event.event_type == EVENT_TYPE_DELETED
            # Nothing under a hidden name is ever taken: a careful writer's first file, and what we take away ourselves.
            # That is also what most job files are that go.
            if not (path.name.startswith(".") or (left and path.suffix == ".toml")):
                self._wake.set()
