"""Every example of the docs and every shipped pipeline, from drop to picture, by the real engine on tiny models."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from conftest import Served, Workspace
from PIL import Image, ImageDraw

from hotfolder.gpu import GpuEngine
from hotfolder.pipelines import Pipelines
from hotfolder.presets import Presets
from hotfolder.settings import Settings
from hotfolder.stages import STAGES

DOCS: Final = Path(__file__).parent.parent / "docs" / "examples.md"
#: The presets that the examples name -> the one of random weights that stands for it.
STANDS_FOR: Final = {
    "flux-dev": "noise",
    "flux-schnell": "noise",
    "flux-kontext": "noise-kontext",
    "flux-fill": "noise-fill",
    "flux-canny": "noise-control",
    "detect": "tiny-detect",
}


def examples() -> dict[str, str]:
    """Name -> text of each job file in the docs."""
    blocks = re.findall(r"^```toml\n(# (\S+)\.toml\n.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return {name: text for text, name in blocks}


def photo(width: int = 160, height: int = 120) -> Image.Image:
    """A mug on a table, more or less."""
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((width // 3, height // 3, width * 2 // 3, height * 5 // 6), fill=(200, 40, 30))
    return picture


class Studio:
    """A workspace whose presets have tiny models, and a daemon with the real engine."""

    def __init__(self, root: Path, models: Path) -> None:
        self.workspace = Workspace(root)
        presets = root / "presets"
        presets.mkdir()
        for name, tiny in STANDS_FOR.items():
            kind = Presets.of(presets).get(tiny).kind
            keys = "" if kind == "detect" else "[keys]\nsteps = 2\nwidth = 64\nheight = 64\n"
            (presets / f"{name}.toml").write_text(f'extends = "{tiny}"\n{keys}')
        (root / "hotfolder.toml").write_text('default_preset = "flux-dev"\nthreads = 1\n')
        inbox = self.workspace.inbox
        photo().save(inbox / "photo.jpg", quality=90)
        Image.new("RGBA", (40, 20), (0, 90, 200, 200)).save(inbox / "our-logo.png")
        (inbox / "prompts.txt").write_text("a mug\na cup\n# a comment\na jug\n")
        (inbox / "photos").mkdir()
        for number in range(3):
            photo(60 + number, 50).save(inbox / "photos" / f"{number}.png")
        self.settings = Settings.read(root, self.workspace.variables(MODELS_DIR=str(models), DEFAULT_PRESET="flux-dev"))
        self.engine = GpuEngine(self.settings)
        self.served = Served(self.settings, self.engine)

    def run(self, name: str, text: str) -> dict[str, Any]:
        self.workspace.drop(f"{name}.toml", text)
        return self.workspace.wait_for(
            f"{name}_take01", "review", "completed", "partial", "failed", "rejected", timeout_s=90
        )

    def pixels(self, job: str) -> list[str]:
        sidecars = sorted((self.workspace.outputs / job).glob("*.*.toml"))
        return [tomllib.loads(path.read_text())["pixels_sha256"] for path in sidecars]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("examples")
    found = Studio(folder / "studio", folder / "models")
    yield found
    found.served.stop()


#: What an example needs on tiny models, whose finder finds noise.
MORE: Final = {"friends": "\n[stage.detect]\nthreshold = 0.0001\n"}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", examples())
def test_an_example_of_the_docs_does_what_it_says(name: str, studio: Studio) -> None:
    status = studio.run(name, examples()[name] + MORE.get(name, ""))
    if name == "poster":
        assert status["state"] == "review"
        studio.workspace.drop("poster.resume", "picks = [1, 4]\n")
        status = studio.workspace.wait_for("poster_take01", "completed", "partial", "failed")
        assert [one["candidate"] for one in status["outputs"]] == [1, 4]
    assert status["state"] == "completed", status.get("error")
    folder = studio.workspace.outputs / f"{name}_take01"
    for one in status["outputs"]:
        with Image.open(folder / one["file"]) as picture:
            picture.load()


def test_every_shipped_pipeline_and_every_stage_of_one_is_in_an_example() -> None:
    named = {tomllib.loads(text).get("pipeline", "generate") for text in examples().values()}
    presets = Presets.of(Path("/nowhere"))
    assert named == set(Pipelines.of(presets).names())


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("name", "files", "sizes"),
    [
        ("best-mug", 1, {(128, 128)}),
        ("product", 1, {(1024, 1024)}),
        ("campaign", 12, {(1024, 1024), (1024, 576), (576, 1024)}),
        ("shop", 5, None),
        ("harbour", 1, {(96, 96)}),
        ("wider", 1, None),
        ("archive", 3, {(800, 800)}),
        ("compare", 6, {(64, 64)}),
        ("paddings", 3, {(1024, 1024)}),
        ("night", 3, {(64, 64)}),
    ],
)
def test_a_pipeline_gives_the_pictures_that_it_promises(
    name: str, files: int, sizes: set[tuple[int, int]] | None, studio: Studio
) -> None:
    again = f"{name}-promise"
    status = studio.run(again, examples()[name])
    assert status["state"] == "completed", status.get("error")
    assert len(status["outputs"]) == files
    found = set()
    for one in status["outputs"]:
        with Image.open(studio.workspace.outputs / f"{again}_take01" / one["file"]) as picture:
            found.add(picture.size)
    assert sizes is None or found == sizes


@pytest.mark.timeout(200)
def test_a_pipeline_makes_the_same_pixels_again_from_its_plan_and_from_every_sidecar(studio: Studio) -> None:
    name = "campaign-again"
    status = studio.run(name, examples()["campaign"] + "\n")
    assert status["state"] == "completed", status.get("error")
    first = studio.workspace.outputs / f"{name}_take01"
    studio.workspace.drop(f"{name}.toml", (first / "plan.toml").read_text())
    again = studio.workspace.wait_for(f"{name}_take02", timeout_s=90)
    assert again["state"] == "completed", again.get("error")
    assert studio.pixels(f"{name}_take02") == studio.pixels(f"{name}_take01")
    for number, sidecar in enumerate(sorted(first.glob("*.webp.toml"))[::5], 3):
        studio.workspace.drop(sidecar.name, sidecar.read_text())
        status = studio.workspace.wait_for(f"{name}_take{number:02d}", timeout_s=90)
        assert status["state"] == "completed", status.get("error")
        made = [
            tomllib.loads(path.read_text())
            for path in (studio.workspace.outputs / f"{name}_take{number:02d}").glob("*.webp.toml")
        ]
        wanted = tomllib.loads(sidecar.read_text())
        assert [one["pixels_sha256"] for one in made] == [wanted["pixels_sha256"]]


def test_every_stage_is_used_by_a_shipped_pipeline_or_an_example() -> None:
    """What nobody is shown how to use, nobody uses; rotate, refine and the like are in the docs of the stages."""
    presets = Presets.of(Path("/nowhere"))
    used = {stage.stage for name in Pipelines.of(presets).names() for stage in Pipelines.of(presets).get(name).stages}
    used |= {stage["stage"] for text in examples().values() for stage in tomllib.loads(text).get("stages", ())}
    assert STAGES.keys() - used == {"rotate", "refine"}
