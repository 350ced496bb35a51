"""The one thread that owns the GPU, and those beside it: they load, save, and run the cells that need no GPU.

The GPU thread encodes nothing, writes no file and never sleeps while there is a cell: while it makes a picture, what
the next goes on with is loaded and the picture before is saved.
"""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from hotfolder import logs, run
from hotfolder.blame import RunningNote
from hotfolder.clock import Clock
from hotfolder.engine import BrokenDevice, JobStopped
from hotfolder.line import Cell
from hotfolder.run import Prepared
from hotfolder.shop import Shop
from hotfolder.stages import Chosen, Outcome

#: Pictures that may wait to be saved: more would only fill the memory when the disk is slow.
SAVE_QUEUE: Final = 2
_MAX_CPU_THREADS: Final = 4
#: Phases that may take as long as they like: the thread waits, or the disk does, or the network.
_NO_DEADLINE: Final = frozenset({"idle", "saving", "download"})
#: Between two looks at the GPU thread no more than this counts as silence.
_MOST_S: Final = 1.0

_log = logs.logger(__name__)


class Silence:
    """For how long a thread has given no sign of life, in time in which this process ran.

    While a process is stopped (SIGSTOP, a frozen container) the clock goes on, and nobody in it can give a sign. Who
    looks again and again can tell: then the look came late too.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._heard: object = None
        self._silent_s = 0.0

    def look(self, sign: object) -> float:
        """Return for how many seconds this has been the last sign."""
        now = self._clock.monotonic()
        passed_s = min(now - self._looked_at, _MOST_S)
        self._silent_s = self._silent_s + passed_s if sign == self._heard else 0.0
        self._heard, self._looked_at = sign, now
        return self._silent_s


class Worker:
    """Runs cells until the line is stopped."""

    def __init__(self, shop: Shop, note: RunningNote) -> None:
        """`note` is told which cell is under way."""
        self._shop = shop
        self._note = note
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._slots = threading.BoundedSemaphore(SAVE_QUEUE)
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")
        self._next: tuple[Cell, Future[Prepared]] | None = None
        self._gpu = threading.Thread(target=self._run, name="gpu")
        self._saver = threading.Thread(target=self._save, name="save")
        count = shop.spool.settings.worker.cpu_threads or max(1, min(_MAX_CPU_THREADS, (os.cpu_count() or 1) // 2))
        self._hands = [threading.Thread(target=self._run_cpu, name=f"cpu-{number}") for number in range(count)]
        self._life = ("idle", shop.clock.monotonic())
        self._silence = Silence(shop.clock)
        self._saving: float | None = None
        #: Why the process must end: the device, or a bug of ours.
        self.broken: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        for thread in (self._gpu, self._saver, *self._hands):
            thread.start()

    def stop(self) -> None:
        """End within one step; what was made is saved first."""
        self._shop.line.stop()
        for thread in (self._gpu, *self._hands):
            thread.join()
        self._events.put(None)
        self._saver.join()
        self._loader.shutdown(cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Whether all threads run."""
        return all(thread.is_alive() for thread in (self._gpu, self._saver, *self._hands))

    def silence(self) -> tuple[str, float]:
        """Return the phase of the GPU thread and the seconds without a sign of life, 0 where it may wait.

        To be asked again and again: see `Silence`.
        """
        life = self._life
        silent_s = self._silence.look(life)
        return life[0], 0.0 if life[0] in _NO_DEADLINE else silent_s

    @property
    def saving_s(self) -> float:
        """For how long the saving thread has been at one thing."""
        since = self._saving
        return 0.0 if since is None else self._shop.clock.monotonic() - since

    def _beat(self, phase: str) -> None:
        self._life = (phase, self._shop.clock.monotonic())

    # --- the GPU thread ---

    def _run(self) -> None:
        shop = self._shop
        try:
            while (cell := shop.line.take("gpu", shop.engine.loaded)) is not None:
                self._make(cell)
                self._beat("idle")
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self.broken = error
        finally:
            shop.line.stop()
            shop.engine.close()

    def _make(self, cell: Cell) -> None:
        shop = self._shop
        self._beat("start")
        self._events.put(lambda: run.begin(shop, cell))
        started = shop.clock.monotonic()
        self._note.write(cell.job.name, cell.candidate)
        try:
            prepared = self._prepared(cell)
            self._load_next()
            made = run.make(shop, prepared, self._beat)
        except JobStopped as stop:
            reason = stop.reason
            self._events.put(lambda: run.stopped(shop, cell, reason))
        except BrokenDevice as error:
            self._note.testify(f"the device broke: {error}")
            self._events.put(lambda: run.give_back(shop, cell))
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model throws ends this row, not the daemon
            failed = error
            self._events.put(lambda: run.fail(shop, cell, failed))
        else:
            seconds = shop.clock.monotonic() - started
            self._beat("saving")
            self._slots.acquire()
            self._events.put(lambda: self._keep(prepared, made, seconds))
        self._note.clear()

    def _prepared(self, cell: Cell) -> Prepared:
        """Return a cell with its pictures: loaded already, if it is the one that was foreseen."""
        ahead, self._next = self._next, None
        if ahead is not None and (ahead[0].job, ahead[0].place) == (cell.job, cell.place):
            return ahead[1].result()
        return run.prepare(self._shop, cell)

    def _load_next(self) -> None:
        """Begin to load what the cell that would be next goes on with."""
        cell = self._shop.line.peek("gpu", self._shop.engine.loaded)
        plan = self._shop.spool.plan_if_any(cell.job) if cell is not None else None
        if cell is not None and plan is not None and (plan.sources or cell.stage > 1):
            self._next = (cell, self._loader.submit(run.prepare, self._shop, cell))

    # --- the threads beside it ---

    def _run_cpu(self) -> None:
        """Run cells that need no GPU, from loading to keeping."""
        shop = self._shop
        try:
            while (cell := shop.line.take("cpu")) is not None:
                self._run_beside(cell)
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self.broken = error
            shop.line.stop()

    def _run_beside(self, cell: Cell) -> None:
        shop = self._shop
        started = shop.clock.monotonic()
        try:
            run.begin(shop, cell)
            prepared = run.prepare(shop, cell)
            made = run.make(shop, prepared, _no_beat)
        except JobStopped as stop:
            run.stopped(shop, cell, stop.reason)
        except Exception as error:  # noqa: BLE001 - whatever a picture brings about ends this row, not the daemon
            run.fail(shop, cell, error)
        else:
            run.keep(shop, prepared, made, shop.clock.monotonic() - started)

    # --- the saving thread ---

    def _keep(self, prepared: Prepared, made: Outcome | Chosen, seconds: float) -> None:
        try:
            run.keep(self._shop, prepared, made, seconds)
        except Exception as error:  # noqa: BLE001 - a bug of ours ends the row, not the thread
            run.fail(self._shop, prepared.cell, error)
        finally:
            self._slots.release()

    def _save(self) -> None:
        """Do what the GPU thread leaves to be done, in order; the journal of a job is written here while it runs."""
        while (event := self._events.get()) is not None:
            self._saving = self._shop.clock.monotonic()
            try:
                event()
            except Exception as error:  # noqa: BLE001 - the thread that saves must outlive any one picture
                # The cell stays under way, and the next start makes it again.
                _log.error("not_saved", error=str(error), exc_info=logs.bug(error))
            self._saving = None


def _no_beat(_phase: str) -> None:
    """The hang deadline is the GPU thread's: what runs beside it stops nobody else."""
