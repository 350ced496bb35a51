"""What folder.toml says of a lane, from the inbox down."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hotfolder import advice, foreign, names, tomltext
from hotfolder.errors import Problem, Rejected
from hotfolder.tomltext import Document

FILE_NAME: Final = "folder.toml"
#: What a folder.toml that is a link, a pipe, a folder or somebody's own gives; anything else may pass.
_NOT_OURS_TO_READ: Final = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO})


@dataclass(frozen=True, kw_only=True)
class LaneDefaults:
    """What folder.toml of a lane says."""

    keys: Mapping[str, Any]
    file: str = "folder.toml"
    picture_jobs: bool = False
    hold: bool = False


NO_DEFAULTS: Final = LaneDefaults(keys={})


def read(inbox: Path, lane: str) -> LaneDefaults:
    """Return what folder.toml says in the inbox and in every folder down to `lane`; the inner one wins.

    Raises:
        Rejected: a folder.toml is wrong; the message names it.
    """
    keys: dict[str, object] = {}
    result = NO_DEFAULTS
    folder = inbox
    for part in ("", *PurePosixPath(lane).parts):
        folder = folder / part
        file = folder / FILE_NAME
        where = names.shown(str(file.relative_to(inbox)))
        try:
            own = read_text(tomltext.parse(foreign.read(file, tomltext.MAX_JOB_BYTES)), where)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno not in _NOT_OURS_TO_READ:
                raise
            found = f"{where} cannot be read: {error.strerror}"
            raise Rejected([Problem(code="bad-value", message=found, hint="look at its rights")]) from error
        except Rejected as error:
            raise Rejected(
                [
                    Problem(
                        code=one.code,
                        message=f"{where}{f', line {one.line}' if one.line else ''}: {one.message}",
                        hint=one.hint,
                    )
                    for one in error.problems
                ]
            ) from error
        keys |= own.keys
        result = LaneDefaults(
            keys=dict(keys), file=own.file, picture_jobs=own.picture_jobs, hold=own.hold or result.hold
        )
    return result


def read_text(document: Document, file: str) -> LaneDefaults:
    """Read folder.toml: `picture_jobs`, `hold`, and any job keys as defaults for the jobs of this lane.

    Raises:
        Rejected: an unknown key or a wrong value.
    """
    table = dict(document.table)
    problems = []
    flags = {}
    for flag in ("picture_jobs", "hold"):
        flags[flag] = table.pop(flag, False)
        if not isinstance(flags[flag], bool):
            problems.append(
                Problem(code="bad-value", message=f"{flag} is true or false", line=document.line_of([flag]))
            )
    unknown = [key for key in table if key not in advice.ALL_KEYS or key == "schedule"]
    problems += [advice.unknown_key(key, document.line_of([key])) for key in unknown[: advice.MAX_LOOKED_AT]]
    if problems:
        raise Rejected(advice.first(problems, max(0, len(unknown) - advice.MAX_LOOKED_AT)))
    return LaneDefaults(keys=table, file=file, **flags)
