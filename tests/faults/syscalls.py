"""System calls that change files: which ones a daemon makes, as strace tells, and how a fault is put at one of them.

strace counts for each thread by itself, and selects by path but not by thread. So a point is found by attaching strace
to all threads, and hit by attaching it to the one thread that makes it: no other thread's call can take its place, and
the others run at full speed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: The calls that change files, or make changes durable.
CALLS = (
    *("openat", "write", "pwrite64", "writev", "sendfile", "copy_file_range", "ftruncate", "fallocate"),
    *("fsync", "fdatasync", "close"),
    *(
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "unlink",
        "unlinkat",
        "mkdir",
        "mkdirat",
        "rmdir",
    ),
)
ERRORS = ("ENOSPC", "EIO", "EACCES", "ESTALE", "EMFILE", "EINTR")
_CALL = re.compile(r"^(?P<thread>\d+) +(?P<call>\w+)\((?P<arguments>.*)$")
_PATH = re.compile(r'"(?P<text>/[^"]*)"|<(?P<opened>/[^>]*)>')
_CHANGES = ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC")


@dataclass(frozen=True, kw_only=True, order=True)
class Point:
    """The `nth` time that a thread of this name makes this call on this path."""

    thread: str
    call: str
    #: Below the workspace.
    path: str
    nth: int
    #: An open that only reads: an error there is met, a kill changes nothing.
    reads: bool = False

    def __str__(self) -> str:
        return f"{self.thread}: {self.call} {self.path} #{self.nth}"

    @property
    def pair(self) -> tuple[str, str]:
        """The call, and the role of the file."""
        return ("open to read" if self.reads else self.call, role(self.path))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens at a point: an error, or as None the end of the process."""

    point: Point
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.error or 'SIGKILL'} at {self.point}"


def trace_all(to: Path, pid: int) -> list[str]:
    """Return the strace that writes down every call of CALLS of a process."""
    return ["strace", "-f", "-y", "-qq", "-e", f"trace={','.join(CALLS)}", "-o", str(to), "-p", str(pid)]


def inject(fault: Fault, path: Path, to: Path, thread: int) -> list[str]:
    """Return the strace that puts a fault at a call of this one thread; `path` is that of the point, in full."""
    point = fault.point
    what = f"error={fault.error}" if fault.error else "signal=SIGKILL"
    return [
        *("strace", "-qq", "-P", str(path), "-e", f"trace={point.call}"),
        *("-e", f"inject={point.call}:{what}:when={point.nth}", "-o", str(to), "-p", str(thread)),
    ]


def was_hit(trace: Path) -> bool:
    """Whether the error was given; a kill tells itself."""
    return "(INJECTED)" in trace.read_text(errors="replace")


def points(trace: Path, root: Path, threads: Mapping[int, str]) -> list[Point]:
    """Return the points of a run below `root`, in order."""
    counts: Counter[tuple[str, str, str]] = Counter()
    found: list[Point] = []
    for line in trace.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        path = _path_in(match["arguments"], root) if match else None
        if match is None or path is None:
            continue
        key = (match["thread"], match["call"], path)
        counts[key] += 1
        if _has_failed(line):
            continue
        reads = match["call"] == "openat" and not any(word in line for word in _CHANGES)
        thread = threads.get(int(match["thread"]), "?")
        found.append(Point(thread=thread, call=match["call"], path=path, nth=counts[key], reads=reads))
    # Closing what was only read changes nothing.
    changed = {point.path for point in found if point.call != "close" and not point.reads}
    return [point for point in dict.fromkeys(found) if point.call != "close" or point.path in changed]


def _path_in(arguments: str, root: Path) -> str | None:
    """Return the first path below `root` that a call names, or has open."""
    for one in _PATH.finditer(arguments):
        path = one["text"] or one["opened"]
        if path.startswith(f"{root}/"):
            return path.removeprefix(f"{root}/")
    return None


def _has_failed(line: str) -> bool:
    return ") = -1 E" in line or re.search(r"\) += -1 E", line) is not None


# --- the role of a file ---

_ROLES: Sequence[tuple[str, str]] = [
    (r"\.hotfolder/live/[^/]+\.new(?=/|$)", "live markers (new)"),
    (r"\.hotfolder/live/[^/]+(?=/|$)", "live markers"),
    (r"live markers( \(new\))?/[^/]+$", "live marker"),
    (r"\.hotfolder/thumbs/.*\.tmp$", "thumbnail (tmp)"),
    (r"\.hotfolder/thumbs/.*\.webp$", "thumbnail"),
    (r"\.hotfolder/thumbs(/.*)?$", "thumbs/"),
    (r"\.hotfolder/gallery\.sqlite.*$", "gallery"),
    (r"^outputs/processed/\.[^/]+\.tmp$", "processed/ (tmp)"),
    (r"^outputs/processed/[^/]+\.png\.toml$", "processed/ sidecar"),
    (r"^outputs/processed/[^/]+\.png$", "processed/ picture"),
    (r"^outputs/processed$", "processed/"),
    (r"^outputs/\.[^/]+\.new(?=/|$)", "new take"),
    (r"^outputs/\.([^/]+)\.tmp$", r"outputs/ \1 (tmp)"),
    (r"[^/]+_take\d+\.active\.toml|[^/ ]+\.active\.toml", "active.toml"),
    (r"^outputs/[^/]+_take\d+(?=/|$)", "take"),
    (r"/\.[^/]+_\d{3}\w*\.png\.tmp$", "/picture (tmp)"),
    (r"/\.[^/]+_\d{3}\w*\.png\.toml\.tmp$", "/sidecar (tmp)"),
    (r"take/work/\.[^/]+\.tmp$", "take/checkpoint (tmp)"),
    (r"take/work/[^/]+$", "take/checkpoint"),
    (r"take/sources/\.[^/]+$", "take/source (tmp)"),
    (r"take/sources/[^/]+$", "take/source"),
    (r"take/[^/]+_\d{3}\w*\.png\.toml$", "take/sidecar"),
    (r"take/[^/]+_\d{3}\w*\.png$", "take/picture"),
    (r"take/\.([^/]+)\.tmp$", r"take/\1 (tmp)"),
    (r"^jobs_inbox/.*\.(cancel|resume)\.taking$", "inbox: control file being taken"),
    (r"^jobs_inbox/.*\.taking$", "inbox: drop being taken"),
    (r"^jobs_inbox/scheduled/\.[^/]+\.status\.toml\.tmp$", "schedule status (tmp)"),
    (r"^jobs_inbox/scheduled/\.[^/]+\.toml\.tmp$", "schedule (tmp)"),
    (r"^jobs_inbox/scheduled/[^/]+\.status\.toml$", "schedule status"),
    (r"^jobs_inbox/scheduled/[^/]+\.toml$", "schedule"),
    (r"^jobs_inbox/scheduled$", "scheduled/"),
    (r"^jobs_inbox/\.[^/]+\.rejected\.toml\.tmp$", "inbox: rejected (tmp)"),
    (r"^jobs_inbox/[^/]+\.rejected\.toml$", "inbox: rejected"),
    (r"^jobs_inbox/[^/]+\.toml$", "inbox: job file"),
    (r"^jobs_inbox/[^/]+\.png$", "inbox: picture"),
    (r"^jobs_inbox/[^/]+\.(cancel|resume)$", "inbox: control file"),
    (r"^jobs_inbox$", "inbox/"),
]


def role(path: str) -> str:
    """Return what a file is for, whatever it is called."""
    for pattern, name in _ROLES:
        path = re.sub(pattern, name, path)
    return path


def table(pairs: Mapping[tuple[str, str], int] | Counter[tuple[str, str]]) -> str:
    """Return a table of the pairs of call and role, with their counts."""
    calls = sorted({call for call, _ in pairs})
    roles = sorted({name for _, name in pairs})
    width = max((len(name) for name in roles), default=0)
    lines = [" " * width + "  " + "  ".join(calls)]
    for name in roles:
        cells = [str(pairs.get((call, name), "") or "").rjust(len(call)) for call in calls]
        lines.append(name.ljust(width) + "  " + "  ".join(cells))
    return "\n".join(lines)


def distinct(found: Iterable[Point]) -> set[tuple[str, str]]:
    """Return the pairs of call and role of some points."""
    return {point.pair for point in found}
