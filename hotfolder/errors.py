"""Every error raised on purpose, by who must act on it.

`JobError` is for the author of a job, `SettingsError` for whoever runs the daemon; anything else is our bug.
Each carries a stable `code`, documented in docs/errors.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: Every code that can stand in a status file, a rejected job file or a CLI answer; docs/errors.md has a row for each.
CODES: Final = frozenset(
    {
        # the text of a job
        "bad-syntax",
        "bad-encoding",
        "too-large",
        "unknown-key",
        "bad-value",
        "missing-key",
        "wrong-kind",
        "unknown-preset",
        "unknown-pipeline",
        "bad-pipeline",
        "service-only",
        "forbidden-path",
        "newer-schema",
        # its pictures
        "missing-picture",
        "bad-picture",
        "changed-file",
        # running it
        "model-missing",
        "wrong-model",
        "bad-model",
        "out-of-memory",
        "output-too-large",
        "crashed-worker",
        "disk-full",
        "cannot-write",
        "nothing-detected",
        "image-too-small",
        "internal",
        # the daemon and its settings
        "bad-settings",
        "bad-preset",
        "no-workspace",
        "workspace-busy",
        "no-daemon",
        "not-found",
        "not-possible",
        "not-completed",
        "not-identical",
        "bad-usage",
    }
)


class HotfolderError(Exception):
    """What both kinds of error share.

    Args:
        code: one of `CODES`.
        message: names the key or file, what was found and what would be accepted.
        hint: what to do next; may be empty.
        transient: whether the same may succeed later although nobody does anything: a network, memory that others use.
        retry_after_s: how long to wait first, where the other side said so.
    """

    def __init__(
        self, code: str, message: str, hint: str = "", *, transient: bool = False, retry_after_s: float | None = None
    ) -> None:
        if code not in CODES:
            raise ValueError(f"no such error code: {code}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.transient = transient
        self.retry_after_s = retry_after_s


class JobError(HotfolderError):
    """The author of the job must act: its text, its pictures, or what it asks for."""


class SettingsError(HotfolderError):
    """Whoever runs the daemon must act: settings, presets, models, disk, rights."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with the text of a job file."""

    code: str
    message: str
    hint: str = ""
    #: Counted from 1, in the text as it was dropped; None where no line can be named.
    line: int | None = None

    def __str__(self) -> str:
        at = f"line {self.line}: " if self.line else ""
        return f"{at}{self.message}" + (f" ({self.hint})" if self.hint else "")


class Rejected(JobError):
    """The text of a job is wrong; carries every problem at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f", and {len(self.problems) - 1} more" if len(self.problems) > 1 else ""
        super().__init__(
            first.code, f"{'line ' + str(first.line) + ': ' if first.line else ''}{first.message}{more}", first.hint
        )
