"""A job file that was refused goes back into the inbox, with the reasons at its lines, to be mended there."""

import os
from pathlib import Path

from hotfolder import durable, foreign, tomltext
from hotfolder.errors import Rejected
from hotfolder.job import JOB_FILE, Job
from hotfolder.plan import digest


def put(folder: Path, job: Job, error: Rejected) -> None:
    """Write NAME.rejected.toml into the folder of the inbox where the drop lay; never over one that somebody edited."""
    data = (job.folder / JOB_FILE).read_bytes()
    text = tomltext.annotate(data, error.problems)
    marked = (
        text if text == data else _signed(text, f"{tomltext.NOTE}mend it, then rename this file to {job.stem}.toml")
    )
    for number in range(1, 1000):
        path = folder / (f"{job.stem}.rejected.toml" if number == 1 else f"{job.stem}-{number}.rejected.toml")
        try:
            stands = foreign.read(path, 2 * tomltext.MAX_OWN_BYTES)
        except FileNotFoundError:
            stands = b""
        except OSError:
            if os.path.lexists(path):
                continue  # somebody else's, whatever it is
            stands = b""  # the disk failed: writing will tell whether it still does
        if not stands or _is_ours(stands):
            durable.write(path, marked)
            durable.sync_folder(folder)
        elif stands != marked:
            continue
        return


def _signed(text: bytes, advice: str) -> bytes:
    """Add what to do, and a signature, so that we know later whether somebody edited it."""
    body = text if text.endswith(b"\n") else text + b"\n"
    body += f"{advice}\n".encode()
    return body + f"{tomltext.NOTE}signature {digest(body)[:16]}\n".encode()


def _is_ours(data: bytes) -> bool:
    body, _, last = data.rstrip(b"\n").rpartition(b"\n")
    signature = digest(body + b"\n")[:16]
    return last == f"{tomltext.NOTE}signature {signature}".encode()
