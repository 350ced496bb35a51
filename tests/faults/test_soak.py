"""A small soak; the large one is `python tests/faults/soak.py`."""

from pathlib import Path

import pytest
from soak_campaign import Soak


@pytest.mark.timeout(900)
def test_nothing_is_lost_or_doubled_whatever_a_crowd_drops_and_whoever_kills_the_daemon(tmp_path: Path) -> None:
    result = Soak(tmp_path, seed=1, kill_every=110).run(600, 200)
    print(result)
    assert result.complaints == []
    assert result.drops >= 600
    assert result.kills >= 1
    assert result.takes > 330
