"""What folder.toml says of a lane, from the inbox down."""

import errno
from pathlib import Path, PurePosixPath
from typing import Final

from hotfolder import foreign, jobfile, names, tomltext
from hotfolder.errors import Problem, Rejected
from hotfolder.jobfile import LaneDefaults

FILE_NAME: Final = "folder.toml"
#: What a folder.toml that is a link, a pipe, a folder or somebody's own gives; anything else may pass.
_NOT_OURS_TO_READ: Final = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO})


def read(inbox: Path, lane: str) -> LaneDefaults:
    """Return what folder.toml says in the inbox and in every folder down to `lane`; the inner one wins.

    Raises:
        Rejected: a folder.toml is wrong; the message names it.
    """
    keys: dict[str, object] = {}
    result = jobfile.NO_DEFAULTS
    folder = inbox
    for part in ("", *PurePosixPath(lane).parts):
        folder = folder / part
        file = folder / FILE_NAME
        where = names.shown(str(file.relative_to(inbox)))
        try:
            own = jobfile.read_lane(tomltext.parse(foreign.read(file, tomltext.MAX_JOB_BYTES)), where)
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
