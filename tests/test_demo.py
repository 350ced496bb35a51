"""`make demo`, but for the installing: the first thing that anybody sees."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.timeout(300)
def test_the_demo_makes_a_picture_of_each_kind_and_names_them(tmp_path: Path) -> None:
    for folder in ("jobs_inbox", "outputs", "tools"):
        (tmp_path / folder).mkdir()
    # Beside other tests, more threads than cores would wait for each other.
    (tmp_path / "hotfolder.toml").write_text("threads = 1\n")
    demo = shutil.copy(ROOT / "tools/demo.py", tmp_path / "tools")
    sheet = tmp_path / "sheet.png"
    command = [sys.executable, demo, "--sheet", sheet]
    ran = subprocess.run(command, capture_output=True, check=False, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    named = [Path(line.strip()) for line in ran.stdout.splitlines() if line.strip().endswith(".png")]
    assert {path.parent.name for path in named} == {
        f"demo-{kind}_take01" for kind in ("prompts", "edit", "fill", "control", "variations")
    }
    assert all(path.is_file() for path in named)
    assert (tmp_path / "outputs/index.html").is_file()
    # Twelve prompts; a source and what came of it, of an edit, a fill and edges; two variations.
    with Image.open(sheet) as tiles:
        assert tiles.size == (4 * 140 - 12, 5 * 180)
