"""Settings are read once, from the file and the environment; what is wrong is named where it stands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hotfolder.errors import SettingsError
from hotfolder.settings import Settings


def read(workspace: Path, text: str = "", **environment: str) -> Settings:
    (workspace / "hotfolder.toml").write_text(text)
    return Settings.read(workspace, environment)


def test_every_key_is_optional(tmp_path: Path) -> None:
    settings = Settings.read(tmp_path, {})
    assert (settings.workspace, settings.device, settings.default_preset) == (tmp_path, "auto", "tiny")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    text = 'device = "cuda:1"\nthreads = 4\n[worker]\nvram_gb = 20\n'
    settings = read(tmp_path, text, HOTFOLDER_DEVICE="cpu", HOTFOLDER_WORKER_VRAM_GB="16.5", OTHER="x")
    assert (settings.device, settings.threads, settings.worker.vram_gb) == ("cpu", 4, 16.5)


@pytest.mark.parametrize(
    ("text", "environment", "told"),
    [
        ("device = ", {}, "hotfolder.toml is no TOML"),
        (f"a = {'[' * 5000}", {}, "hotfolder.toml is no TOML"),
        (f"threads = {'9' * 5000}", {}, "hotfolder.toml is no TOML"),
        ('"\\u001b[31m" = 1', {}, "unknown key \\x1b[31m"),
        (f"device = '{'x' * 5000}'", {}, "device = 'xxx"),
        ('models_dir = "~nobody-of-this-name/models"', {}, "models_dir"),
        ('models_dir = "a\\u0000b"', {}, "models_dir"),
        ("devise = 'cpu'", {}, "hotfolder.toml: unknown key devise, did you mean device?"),
        ("settle_s = 1", {}, "unknown key settle_s, did you mean inbox.settle_s?"),
        ("device = 'mps'", {}, "device = 'mps': accepted are auto, cpu, cuda and cuda:N"),
        ("device = 'tpu'", {}, "hotfolder.toml: device = 'tpu'"),
        ("threads = 0", {}, "threads = 0"),
        ("[worker]\nvram_gb = 'all'", {}, "worker.vram_gb = 'all'"),
        ("workspace = '/tmp'", {}, "unknown key workspace"),
        ("", {"HOTFOLDER_DEVISE": "cpu"}, "unknown variable HOTFOLDER_DEVISE"),
        ("", {"HOTFOLDER_THREADS": "many"}, "environment HOTFOLDER_THREADS: threads = 'many'"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(
    tmp_path: Path, text: str, environment: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, **environment)
    assert caught.value.code == "bad-settings"
    assert told in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


#: Watches every import, from before anything of ours; then makes a picture, and looks where models are kept.
_WATCHING = """
import json, os, sys
from pathlib import Path

homes = {}

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("huggingface_hub", "transformers", "diffusers", "accelerate", "tokenizers"):
            homes[name] = os.environ.get("HF_HOME"), Path(os.environ.get("HF_HOME", "/nowhere")).is_dir()

sys.meta_path.insert(0, Watch())
from hotfolder.engine import Request
from hotfolder.gpu import GpuEngine
from hotfolder.presets import Presets
from hotfolder.settings import Settings

settings = Settings.read(Path(sys.argv[1]))
preset = Presets.of(settings.presets_dir).get("tiny")
request = Request(kind=preset.kind, preset="tiny", model=preset.model, prompt="", seed=1, width=32, height=32, steps=1)
before = dict(homes)
GpuEngine(settings).make(request, lambda *now: None)
import huggingface_hub.constants
print(json.dumps([before, homes, huggingface_hub.constants.HF_HOME]))
"""


@pytest.mark.parametrize("kept", [False, True])
def test_where_models_are_kept_is_set_before_anything_of_hugging_face_is_imported(
    tmp_path: Path, *, kept: bool
) -> None:
    (tmp_path / "hotfolder.toml").write_text('device = "cpu"\nmodels_dir = "our models"\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HOTFOLDER_"))}
    home = tmp_path / ("theirs" if kept else "our models")
    if kept:
        environment["HF_HOME"] = str(home)
    run = subprocess.run(
        [sys.executable, "-c", _WATCHING, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    before, homes, used = json.loads(run.stdout)
    assert before == {}
    assert {"huggingface_hub", "transformers", "diffusers"} <= homes.keys()
    assert set(map(tuple, homes.values())) == {(str(home), True)}
    assert used == str(home)
    assert (tmp_path / "our models" / "tiny").is_dir()


def test_a_value_where_a_table_belongs_is_named_also_when_the_environment_reaches_into_it(tmp_path: Path) -> None:
    (tmp_path / "hotfolder.toml").write_text("worker = 3\n")
    with pytest.raises(SettingsError, match="worker = 3"):
        Settings.read(tmp_path, {"HOTFOLDER_WORKER_VRAM_GB": "8"})
