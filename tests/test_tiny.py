"""The tiny models: the same bytes everywhere, whole or not there."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_jobs import settings_of

from hotfolder import models, tiny
from hotfolder.errors import SettingsError
from hotfolder.models import Checkpoint

PIPELINES = ("noise", "noise-kontext", "noise-fill", "noise-control", "noise-redux")
NAMES = (*PIPELINES, "tiny-detect", "tiny-depth", "tiny-pose", "tiny-clip", "tiny-upscale")


def hashes(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    for name in NAMES:
        tiny.build(name, folder / name)
    return folder


def test_the_bytes_are_the_same_in_another_process_and_folder(built: Path, tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from hotfolder import tiny"
    program += "; [tiny.build(name, Path(sys.argv[1]) / name) for name in reversed(sys.argv[2:])]"
    subprocess.run([sys.executable, "-c", program, str(tmp_path), *NAMES], check=True, capture_output=True, timeout=100)
    assert hashes(tmp_path) == hashes(built)
    assert len(hashes(built)) > len(NAMES)


def test_text_encoders_tokenizers_and_vae_are_shared_and_transformers_are_not(built: Path) -> None:
    identities = [Checkpoint(repo=name, folder=built / name, revision="").identities() for name in PIPELINES[:-1]]
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"):
        assert len({parts[part] for parts in identities}) == 1, part
    assert len({parts["transformer"] for parts in identities}) == len(identities)


def test_a_model_that_is_there_is_left_alone(built: Path) -> None:
    before = (built / "noise" / "model_index.json").stat()
    tiny.build("noise", built / "noise")
    assert (built / "noise" / "model_index.json").stat() == before


def test_two_that_build_at_once_leave_one_whole_model_and_nothing_else(built: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(tiny.build, "noise-redux", tmp_path / "here" / "noise-redux") for _ in range(2)]:
            done.result()
    assert hashes(tmp_path / "here" / "noise-redux") == hashes(built / "noise-redux")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["noise-redux"]


def test_a_name_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="hotfolder/huge") as caught:
        tiny.build("huge", tmp_path / "huge")
    assert caught.value.code == "bad-preset"
    assert "hotfolder/noise-fill" in caught.value.hint


def test_a_models_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    folder = models.tiny_folder("noise", settings_of(tmp_path))
    with pytest.raises(SettingsError, match="Not a directory") as caught:
        tiny.build("noise", folder)
    assert caught.value.code == "cannot-write"
    assert str(folder) in caught.value.message
