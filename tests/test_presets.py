"""The shipped presets are whole and do what their model cards say; a workspace's own are laid over them."""

from pathlib import Path

import pytest
from tiny_jobs import ignore, mask, settings_of, source

from hotfolder.engine import Request
from hotfolder.errors import SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.kindkeys import KIND_KEYS
from hotfolder.kinds import KINDS
from hotfolder.presets import HELPER_KINDS, Presets, shipped_dir

SHIPPED = Presets.of(Path("/nowhere"))
#: What the model cards recommend: steps, guidance, max_sequence_length. For dev they show 50 steps; 28 is our choice.
CARDS = {
    "flux-schnell": (4, None, 256),
    "flux-dev": (28, 3.5, 512),
    "flux-kontext": (28, 2.5, 512),
    "flux-fill": (50, 30.0, 512),
    "flux-depth": (30, 10.0, 512),
    "flux-canny": (50, 30.0, 512),
    "flux-redux": (50, 2.5, 512),
}
#: Name -> kind, of those that run anywhere.
TINY = {
    f"{family}{suffix}": kind
    for family in ("tiny", "noise")
    for suffix, kind in {
        "": "text2img",
        "-kontext": "kontext",
        "-fill": "fill",
        "-control": "control",
        "-redux": "redux",
    }.items()
}
#: Licence of the weights, as their cards say it, and megabytes to download.
HELPERS = {
    "detect": ("Apache-2.0", 690),
    "depth": ("Apache-2.0", 99),
    "pose": ("Apache-2.0", 344),
    "clip": ("MIT", 1711),
    "swin2sr": ("Apache-2.0", 49),
    "esrgan": ("BSD-3-Clause", 67),
}
TINY_HELPERS = {f"tiny-{kind}": kind for kind in sorted(HELPER_KINDS)}
PAINTING = sorted({*CARDS, *TINY})


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "presets").mkdir()
    return tmp_path / "presets"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> GpuEngine:
    return GpuEngine(settings_of(tmp_path_factory.mktemp("workspace")))


def test_the_shipped_presets_are_these() -> None:
    assert SHIPPED.names() == sorted({*PAINTING, *HELPERS, *TINY_HELPERS})


@pytest.mark.parametrize("name", [*HELPERS, *TINY_HELPERS])
def test_a_helper_preset_has_no_keys_and_says_what_it_takes_to_have_it(name: str) -> None:
    preset = SHIPPED.get(name)
    assert preset.kind in HELPER_KINDS
    assert preset.title
    assert preset.keys == {}
    assert preset.model.dtype == "float32"
    licence, megabytes = HELPERS.get(name, ("Apache-2.0", 0))
    assert preset.licence == licence
    assert preset.download_gb >= round(megabytes / 1000, 1)
    assert preset.url == (f"https://huggingface.co/{preset.model.repo}" if megabytes else "")
    assert preset.kind == TINY_HELPERS.get(name, preset.kind)


@pytest.mark.parametrize("name", PAINTING)
def test_a_shipped_preset_names_its_kind_licence_and_keys_that_a_job_may_set(name: str) -> None:
    preset = SHIPPED.get(name)
    assert preset.kind in KINDS
    assert preset.title
    assert preset.licence
    KIND_KEYS[preset.kind](**preset.keys)
    assert set(preset.origins.values()) <= set(map(str, shipped_dir().glob("*.toml")))


@pytest.mark.parametrize("name", CARDS)
def test_a_real_model_has_the_settings_of_its_card_and_says_what_it_takes_to_have_it(name: str) -> None:
    preset = SHIPPED.get(name)
    assert (preset.keys["steps"], preset.keys.get("guidance"), preset.max_sequence_length) == CARDS[name]
    assert preset.download_gb > 30
    assert preset.url == f"https://huggingface.co/{preset.model.repo}"
    assert preset.model.dtype == "bfloat16"
    assert ("Non-Commercial" in preset.licence) == (name != "flux-schnell")


@pytest.mark.parametrize("name", PAINTING)
def test_only_where_no_picture_decides_the_size_a_preset_does(name: str) -> None:
    preset = SHIPPED.get(name)
    assert ({"width", "height"} <= preset.keys.keys()) == (preset.kind in {"text2img", "redux"})


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_preset_paints_as_it_is(engine: GpuEngine, name: str) -> None:
    preset = SHIPPED.get(name)
    assert preset.kind == TINY[name]
    side = 128 if preset.limits.sizes else 256
    assert {preset.keys.get(key, side) for key in ("width", "height")} == {side}
    pictures = {"image": source(side, side), "mask": mask(side, side), "control": source(side, side)}
    request = Request(
        kind=preset.kind,
        preset=name,
        model=preset.model,
        prompt="a red mug",
        seed=1,
        width=side,
        height=side,
        steps=preset.keys["steps"],
        guidance=preset.keys.get("guidance"),
        max_sequence_length=preset.max_sequence_length,
        pictures={role: pictures[role] for role in KINDS[preset.kind].needs},
    )
    made = engine.make(request, ignore)
    assert (made.image.size, made.notices) == ((side, side), ())


def test_the_keys_of_different_models_differ_and_of_the_same_model_do_not() -> None:
    names = SHIPPED.names()
    assert len({SHIPPED.get(name).model.key for name in names}) == len(names)


def test_a_model_that_is_only_a_service_is_refused_with_the_nearest_that_is_not() -> None:
    with pytest.raises(SettingsError, match="only as a service of Black Forest Labs") as caught:
        SHIPPED.get("flux-pro")
    assert caught.value.code == "service-only"
    assert "'flux-dev'" in caught.value.hint


def test_a_preset_that_does_not_exist_is_refused_with_what_was_meant() -> None:
    with pytest.raises(SettingsError, match="no preset 'flux-shnell'") as caught:
        SHIPPED.get("flux-shnell")
    assert caught.value.code == "unknown-preset"
    assert "did you mean 'flux-schnell'?" in caught.value.hint


def test_a_preset_of_the_workspace_goes_before_the_shipped_one_and_may_extend_it(own: Path) -> None:
    (own / "noise.toml").write_text('extends = "noise"\n[keys]\nsteps = 2\n')
    preset = Presets.of(own).get("noise")
    assert preset.keys == {**SHIPPED.get("noise").keys, "steps": 2}
    assert preset.origins["keys.steps"] == str(own / "noise.toml")
    assert preset.origins["model.repo"] == str(shipped_dir() / "noise.toml")


def test_an_edited_preset_serves_the_next_job(own: Path) -> None:
    presets = Presets.of(own)
    (own / "mine.toml").write_text('extends = "noise"\n')
    assert presets.get("mine").keys["steps"] == 8
    (own / "mine.toml").write_text('extends = "noise"\n[keys]\nsteps = 3\n')
    assert presets.get("mine").keys["steps"] == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind = ", "is no TOML"),
        ('extends = "nothing"', "extends = 'nothing', which does not exist"),
        ('extends = "mine"', "extends = 'mine', which does not exist"),
        ('extends = "noise"\nsteps = 3', "unknown key steps"),
        ('extends = "noise"\nlicense = "MIT"', "unknown key license, did you mean licence?"),
        ('extends = "noise"\nkind = "video"', "kind = 'video'"),
        ('extends = "noise"\n[model]\ndtype = "int2"', "model.dtype = 'int2'"),
        ('kind = "text2img"', "model is missing"),
        ('extends = "noise"\nkind = "depth"', "a preset of the kind depth makes no pictures and has no keys"),
        ('extends = "noise-redux"\nkind = "clip"', "base is accepted for the kind redux only"),
        ('extends = "noise"\n[model]\nfile = "x.safetensors"', "file is accepted for the kind upscale only"),
        ('extends = "tiny-upscale"\n[model]\nfile = "x.pth"', "a file that ends in .safetensors is accepted"),
        ('extends = "tiny-upscale"\n[model]\nfile = "../x.safetensors"', "a file inside the repo is accepted"),
        ('extends = "noise"\nname = "x"', "name"),
        ('extends = "noise"\nmodel = "black-forest-labs/FLUX.1-dev"', "model = 'black-forest-labs/FLUX.1-dev'"),
        ('extends = "odd"\n[model]\ndtype = "float32"', "model.repo is missing"),
    ],
)
def test_a_broken_preset_is_named_with_its_key(own: Path, text: str, told: str) -> None:
    (own / "odd.toml").write_text('kind = "text2img"\nmodel = "a name"\n')
    (own / "mine.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        Presets.of(own).get("mine")
    assert caught.value.code == "bad-preset"
    assert told in caught.value.message
    assert str(own / "mine.toml") in caught.value.message


def test_presets_that_extend_each_other_are_refused(own: Path) -> None:
    (own / "one.toml").write_text('extends = "other"\n')
    (own / "other.toml").write_text('extends = "one"\n')
    with pytest.raises(SettingsError, match="goes round in a circle"):
        Presets.of(own).get("one")
