"""What came of the trials of a campaign, on disk, and what it adds up to."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trials import Trial


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial, as it is written down."""

    scenario: str
    fault: str
    #: The call, and the role of the file.
    pair: tuple[str, str]
    #: The second kill, and its call and role.
    again: str | None
    again_pair: tuple[str, str] | None
    hit: bool
    problem: str


class TrialLog:
    """The trials so far. A line that was torn is a trial that was not made."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows = [_row(json.loads(line)) for line in lines if line.endswith("}")]

    @property
    def done(self) -> set[tuple[str, str]]:
        """Scenario and fault, where the run came to that point and nothing was broken."""
        return {(row.scenario, row.fault) for row in self.rows if row.hit and not row.problem}

    def add(self, trial: Trial) -> None:
        """Write one down."""
        again = trial.again
        row = Row(
            scenario=trial.scenario,
            fault=str(trial.fault),
            pair=trial.fault.point.pair,
            again=str(again) if again else None,
            again_pair=again.pair if again else None,
            hit=trial.hit,
            problem=trial.problem,
        )
        self.rows.append(row)
        with self._file.open("a") as file:
            file.write(f"{json.dumps(asdict(row))}\n")

    @property
    def last(self) -> list[Row]:
        """The last trial of each case."""
        return list({(row.scenario, row.fault, row.again): row for row in self.rows}.values())

    def pairs(self) -> Counter[tuple[str, str]]:
        """How often each pair of call and role was hit."""
        return Counter(row.pair for row in self.last if row.hit and not row.again)

    def again_pairs(self) -> Counter[tuple[str, str]]:
        """The same for second kills."""
        return Counter(row.again_pair for row in self.last if row.hit and row.again_pair)

    def summary(self) -> dict[str, Any]:
        """Return the counts."""
        first = [row for row in self.last if row.hit and not row.again]
        return {
            "hit": len(first),
            "hit_again": self.again_pairs().total(),
            "not_reached": len([row for row in self.last if not row.hit]),
            "broken": len([row for row in self.last if row.problem]),
            "by_scenario": dict(Counter(row.scenario for row in first)),
            "distinct_pairs": len(self.pairs()),
        }


def _row(data: dict[str, Any]) -> Row:
    again = data["again_pair"]
    return Row(**{**data, "pair": tuple(data["pair"]), "again_pair": tuple(again) if again else None})
