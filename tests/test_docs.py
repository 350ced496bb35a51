"""What the documentation says is what there is."""

import re
from pathlib import Path

import pytest

from hotfolder.errors import CODES, JobError
from hotfolder.kindkeys import KIND_KEYS, Schedule
from hotfolder.settings import Settings
from hotfolder.stagekeys import STAGE_KEYS

ROOT = Path(__file__).resolve().parent.parent


def test_every_error_code_has_a_row_and_every_row_a_code() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(CODES)


def test_every_code_is_used() -> None:
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "hotfolder").rglob("*.py") if path.name != "errors.py"
    )
    assert {code for code in CODES if f'"{code}"' not in source} == set()


def test_an_error_without_a_documented_code_cannot_be_raised() -> None:
    with pytest.raises(ValueError, match="no such error code"):
        JobError("made-up", "text")


@pytest.mark.parametrize("kind", KIND_KEYS)
def test_every_key_of_a_job_file_is_explained(kind: str) -> None:
    text = (ROOT / "docs/job-file.md").read_text(encoding="utf-8")
    missing = [
        key for key in KIND_KEYS[kind].model_fields if not re.search(rf"^\[?{key}\b|`{key}`", text, re.MULTILINE)
    ]
    assert not missing


def test_every_setting_is_explained() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    missing = [
        key
        for key in Settings.model_fields
        if key != "workspace" and not re.search(rf"^\[?{key}\b", text, re.MULTILINE)
    ]
    for table in ("inbox", "worker", "outputs", "batch"):
        inner = type(getattr(Settings(workspace=ROOT), table)).model_fields
        missing += [key for key in inner if not re.search(rf"^{key} =", text, re.MULTILINE)]
    assert not missing


@pytest.mark.parametrize("stage", STAGE_KEYS)
def test_every_key_of_every_stage_is_explained(stage: str) -> None:
    text = (ROOT / "docs/stages.md").read_text(encoding="utf-8")
    _, found, after = text.partition(f"### `{stage}`\n")
    assert found
    own = after.partition("\n### ")[0]
    assert [key for key in STAGE_KEYS[stage].model_fields if f"| `{key}` |" not in own] == []


def test_every_key_of_a_schedule_is_explained() -> None:
    text = (ROOT / "docs/schedules.md").read_text(encoding="utf-8")
    assert not [key for key in Schedule.model_fields if key not in text]


def test_every_link_between_the_pages_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "systemd/README.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"
