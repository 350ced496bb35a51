"""The systemd units: they parse, they give away little, and the GPU stays within reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parent.parent / "systemd"
SYSTEM_UNIT = SYSTEMD / "hotfolder.service"
USER_UNIT = SYSTEMD / "user" / "hotfolder.service"


@pytest.fixture
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        if os.environ.get("REQUIRE_TEST_TOOLS") == "1":
            pytest.fail("systemd-analyze is not installed (Debian: systemd)")
        pytest.skip("systemd-analyze is not installed")
    return found


@pytest.mark.parametrize(("unit", "flags"), [(SYSTEM_UNIT, []), (USER_UNIT, ["--user"])], ids=["system", "user"])
def test_a_unit_is_valid(unit: Path, flags: list[str], systemd_analyze: str, tmp_path: Path) -> None:
    # Verifying wants the program to be there; /opt/hotfolder is not on this machine, /bin/true is.
    lines = ["ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in unit.read_text().splitlines()]
    copy = tmp_path / "hotfolder.service"
    copy.write_text("\n".join(lines) + "\n")

    verdict = subprocess.run(
        [systemd_analyze, "verify", "--man=no", "--recursive-errors=no", *flags, str(copy)],
        # The user's manager wants a runtime folder of its own.
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    # A key that is unknown or cannot be parsed is only a warning to systemd, and the setting is then not there.
    assert str(copy) not in verdict.stderr, verdict.stderr
    assert verdict.returncode == 0, verdict.stderr


def test_the_system_unit_is_exposed_at_most_2_of_10(systemd_analyze: str) -> None:
    verdict = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(SYSTEM_UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Overall exposure level for hotfolder.service" in verdict.stdout, verdict.stderr
    assert verdict.returncode == 0, verdict.stdout


def test_hardening_leaves_the_gpu_and_generated_machine_code_alone() -> None:
    service = settings(SYSTEM_UNIT)

    assert "PrivateDevices" not in service, "it hides /dev/nvidia*, /dev/dri and /dev/kfd"
    assert {"char-nvidia* rw", "char-drm rw", "char-kfd rw"} <= set(service["DeviceAllow"])
    assert service["MemoryDenyWriteExecute"] == ["no"], "PyTorch writes machine code while it runs"
    assert service.get("ProcSubset", ["all"]) == ["all"], "CUDA reads /proc/driver/nvidia and /proc/devices"


def test_both_units_start_stop_and_watch_in_the_same_way() -> None:
    system, user = settings(SYSTEM_UNIT), settings(USER_UNIT)

    for key in [
        "Type",
        "NotifyAccess",
        "WatchdogSec",
        "TimeoutStopSec",
        "KillMode",
        "Restart",
        "RestartPreventExitStatus",
    ]:
        assert system[key] == user[key], key


def settings(unit: Path) -> dict[str, list[str]]:
    """What stands in a unit, by key; configparser refuses keys that stand there twice."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found
