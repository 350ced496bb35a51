"""What is known of a model from its files alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_jobs import model_of, settings_of

from hotfolder import models, tiny
from hotfolder.errors import SettingsError
from hotfolder.kinds import KINDS
from hotfolder.models import Checkpoint, Latents
from hotfolder.presets import Presets
from hotfolder.settings import Settings


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "noise"
    tiny.build("noise", folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A model of the operator's own, below the workspace."""
    return Path(shutil.copytree(pristine, tmp_path / "mine"))


def own(folder: Path) -> Checkpoint:
    return Checkpoint(repo="./mine", folder=folder, revision="")


def _as_drawn(latents: Latents) -> int:
    return latents.packed


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_tiny_model_is_built_on_first_use_and_then_ready(settings: Settings) -> None:
    model = model_of("hotfolder/noise")
    assert models.state(model, settings) == "built on first use"
    tiny.build("noise", models.tiny_folder("noise", settings))
    assert models.state(model, settings) == "ready"


def test_a_model_with_a_base_is_ready_only_with_it(settings: Settings) -> None:
    model = model_of("hotfolder/noise-redux", base="hotfolder/noise")
    tiny.build("noise-redux", models.tiny_folder("noise-redux", settings))
    assert models.state(model, settings) == "built on first use"
    assert models.state(model_of("hotfolder/noise-redux", base="./nowhere"), settings) == "missing"


def test_a_folder_below_the_workspace_is_ready(settings: Settings, folder: Path) -> None:
    assert models.state(model_of("./mine"), settings) == "ready"
    assert models.state(model_of(str(folder)), settings) == "ready"


@pytest.mark.parametrize(
    "gone",
    [
        "model_index.json",
        "vae/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "tokenizer",
        "scheduler",
    ],
)
def test_a_model_that_lacks_a_file_is_missing(settings: Settings, folder: Path, gone: str) -> None:
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert models.state(model_of("./mine"), settings) == "missing"


def test_a_model_that_lacks_one_of_its_shards_is_missing(settings: Settings, folder: Path) -> None:
    part = folder / "text_encoder_2"
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (part / "model.safetensors").rename(part / shards[0])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (part / "model.safetensors.index.json").write_text(json.dumps(index))
    assert models.state(model_of("./mine"), settings) == "missing"
    shutil.copy(part / shards[0], part / shards[1])
    assert models.state(model_of("./mine"), settings) == "ready"


@pytest.mark.parametrize("repo", ["nobody/nothing", "a/b/c", "just-a-name", "./nowhere", "/nowhere", "~/nowhere"])
def test_what_is_not_here_is_missing_whatever_it_is_called(settings: Settings, repo: str) -> None:
    assert models.state(model_of(repo), settings) == "missing"


def test_a_broken_index_is_missing_in_a_list_and_named_when_used(settings: Settings, folder: Path) -> None:
    (folder / "model_index.json").write_text("{")
    assert models.state(model_of("./mine"), settings) == "missing"
    with pytest.raises(SettingsError, match=r"model_index\.json is missing or broken") as caught:
        models.find("./mine", "main", settings)
    assert caught.value.code == "bad-model"


def test_a_part_of_a_foreign_library_is_refused(folder: Path) -> None:
    edit(folder / "model_index.json", vae=["my_code", "Vae"])
    with pytest.raises(SettingsError, match="its vae is a Vae of 'my_code'") as caught:
        own(folder).parts()
    assert caught.value.code == "wrong-model"


def test_the_wrong_kind_is_known_by_its_class(folder: Path) -> None:
    own(folder).check("FluxPipeline", _as_drawn)
    with pytest.raises(SettingsError, match="is a FluxPipeline; needed is a FluxKontextPipeline") as caught:
        own(folder).check("FluxKontextPipeline", _as_drawn)
    assert caught.value.code == "wrong-model"


def test_the_wrong_kind_is_known_by_its_transformer(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="FluxFillPipeline")
    with pytest.raises(SettingsError, match="in_channels = 64; needed is a FluxFillPipeline with in_channels = 384"):
        own(folder).check("FluxFillPipeline", KINDS["fill"].in_channels)


@pytest.mark.parametrize(("levels", "channels"), [(4, 384), (5, 1152)])
def test_how_many_channels_a_kind_needs_follows_from_the_latents(folder: Path, levels: int, channels: int) -> None:
    edit(folder / "model_index.json", _class_name="FluxFillPipeline")
    edit(folder / "transformer/config.json", in_channels=channels)
    edit(folder / "vae/config.json", block_out_channels=[8] * levels)
    own(folder).check("FluxFillPipeline", KINDS["fill"].in_channels)


def test_a_vae_of_another_sort_is_told(folder: Path) -> None:
    edit(folder / "vae/config.json", block_out_channels=[])
    with pytest.raises(SettingsError, match="tells of no latents") as caught:
        own(folder).check("FluxPipeline", _as_drawn)
    assert caught.value.code == "bad-model"


def test_a_model_without_a_text_encoder_is_refused(folder: Path) -> None:
    edit(folder / "model_index.json", text_encoder_2=[None, None])
    with pytest.raises(SettingsError, match="has no text_encoder_2") as caught:
        own(folder).check("FluxPipeline", _as_drawn)
    assert caught.value.code == "wrong-model"


def test_a_part_is_the_same_whoever_saved_it(pristine: Path, folder: Path) -> None:
    for part in ("text_encoder", "text_encoder_2", "vae", "transformer"):
        edit(
            folder / part / "config.json",
            _name_or_path="elsewhere",
            transformers_version="4.43",
            _diffusers_version="0",
        )
    assert own(folder).identities() == own(pristine).identities()


@pytest.mark.parametrize(
    "file", ["vae/config.json", "tokenizer_2/tokenizer.json", "vae/diffusion_pytorch_model.safetensors"]
)
def test_a_part_is_another_where_its_content_is(pristine: Path, folder: Path, file: str) -> None:
    part = file.partition("/")[0]
    before = own(folder).identities()
    if file.endswith(".json"):
        edit(folder / file, more=1)
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:-1] + b"\x01")
    after = own(folder).identities()
    assert {name for name in before if before[name] != after[name]} == {part}
    assert models.fingerprint([before]) != models.fingerprint([after])


def test_only_the_weights_of_the_variant_count(pristine: Path, folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    special = weights.with_name("diffusion_pytorch_model.fp16.safetensors")
    special.write_bytes(weights.read_bytes() + b"\x00")
    assert own(folder).identities() == own(pristine).identities()
    assert own(folder).identities("fp16") != own(pristine).identities()
    assert own(folder).identities("fp16")["text_encoder"] == own(pristine).identities()["text_encoder"]


def test_parameters_are_counted_without_reading_the_weights(folder: Path) -> None:
    size = (folder / "vae" / "diffusion_pytorch_model.safetensors").stat().st_size
    # float32, and a header of names and shapes
    assert 0.8 * size / 4 < own(folder).parameters("vae") < size / 4
    assert own(folder).parameters("tokenizer") == 0


def test_a_missing_model_says_how_to_get_it(settings: Settings) -> None:
    preset = Presets.of(settings.presets_dir).get("flux-dev")
    error = models.missing(preset.model.repo, settings, preset)
    assert error.code == "model-missing"
    for text in ("hf download black-forest-labs/FLUX.1-dev", "33.7 GB", "Non-Commercial", preset.url, "HF_HOME="):
        assert text in error.hint


def test_looking_at_models_loads_no_torch(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from hotfolder import models, presets, settings
here = settings.Settings(workspace=Path(sys.argv[1]))
for name in (known := presets.Presets.of(here.presets_dir)).names():
    models.state(known.get(name).model, here)
print([name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=100
    )
    assert run.stdout == "[]\n"
