"""Drop a job file, get a picture: every kind on real diffusers pipelines, through the folder alone."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Served, Workspace
from PIL import Image
from waiting import wait_until

from hotfolder.engine import StopReason
from hotfolder.gpu import GpuEngine

#: Kind -> job file; small, so that each takes a fraction of a second.
KINDS = {
    "text2img": 'preset = "noise"\nprompt = "a mug"\nwidth = 64\nheight = 64\n',
    "img2img": 'preset = "noise"\nprompt = "a mug"\nimage = "source.png"\nstrength = 0.7\n',
    "kontext": 'preset = "noise-kontext"\nprompt = "make it blue"\nimage = "source.png"\n',
    "fill": 'preset = "noise-fill"\nprompt = "a star"\nimage = "source.png"\nmask = "mask.png"\n',
    "control": 'preset = "noise-control"\nprompt = "a mug of glass"\ncontrol = "source.png"\n',
    "redux": 'preset = "noise-redux"\nimage = "source.png"\nwidth = 64\nheight = 64\n',
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models folder of this module: the tiny models are made once."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def studio(tmp_path: Path, models: Path) -> Iterator["Studio"]:
    made = Studio(tmp_path / "studio", models)
    yield made
    made.close()


class Studio(Workspace):
    """A workspace served by the real engine."""

    def __init__(self, root: Path, models: Path) -> None:
        super().__init__(root)
        self._env = {"MODELS_DIR": str(models), "DEVICE": "cpu", "THREADS": "1"}
        self._served: Served | None = None
        self.draw()

    def draw(self) -> None:
        """Lay the pictures that the jobs name into the inbox."""
        gradient = Image.linear_gradient("L").resize((64, 64))
        Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(self.inbox / "source.png")
        mask = Image.new("L", (64, 64))
        mask.paste(255, (16, 16, 48, 48))
        mask.save(self.inbox / "mask.png")

    def serve(self) -> Served:
        settings = self.settings(**self._env)
        self._served = Served(settings, GpuEngine(settings))
        return self._served

    def close(self) -> None:
        if self._served is not None:
            self._served.stop()

    def pixels(self, job: str) -> list[str]:
        """pixels_sha256 of each picture, as its sidecar says."""
        sidecars = sorted((self.outputs / job).glob("*.png.toml"))
        return [tomllib.loads(path.read_text(encoding="utf-8"))["pixels_sha256"] for path in sidecars]


def test_every_kind_goes_from_drop_to_picture(studio: Studio) -> None:
    studio.serve()
    for kind, text in KINDS.items():
        studio.drop(f"{kind}.toml", f"{text}seed = 7\nsteps = 2\ncount = 2\n")
    for kind in KINDS:
        status = studio.wait_for(f"{kind}_take01", timeout_s=60)
        assert status["state"] == "completed", status
        assert [output["seed"] for output in status["outputs"]] == [7, 8]
        for output in status["outputs"]:
            picture = studio.outputs / f"{kind}_take01" / output["file"]
            with Image.open(picture) as image:
                image.load()
                assert image.size == (64, 64)
                assert image.info["parameters"].splitlines()[-1].startswith("Steps: ")
            assert picture.with_name(f"{picture.name}.toml").exists()
        assert len(set(studio.pixels(f"{kind}_take01"))) == 2, "two seeds, two pictures"


def test_fill_leaves_what_the_mask_does_not_cover(studio: Studio) -> None:
    studio.serve()
    studio.drop("fill.toml", f"{KINDS['fill']}seed = 7\nsteps = 2\n")
    studio.wait_for("fill_take01", "completed", timeout_s=60)
    with (
        Image.open(studio.inbox / "source.png") as source,
        Image.open(studio.outputs / "fill_take01/fill_take01_001.png") as made,
        Image.open(studio.inbox / "mask.png") as mask,
    ):
        outside = Image.composite(Image.new("RGB", mask.size), made, mask)
        assert outside.tobytes() == Image.composite(Image.new("RGB", mask.size), source, mask).tobytes()
        assert made.tobytes() != source.tobytes()


def test_a_dropped_plan_gives_the_same_pixels_in_another_process_and_workspace(studio: Studio, tmp_path: Path) -> None:
    studio.serve()
    for kind, text in KINDS.items():
        studio.drop(f"{kind}.toml", f"{text}steps = 2\n")
    for kind in KINDS:
        studio.wait_for(f"{kind}_take01", "completed", timeout_s=60)
    other = Studio(tmp_path / "other", tmp_path / "other-models")
    for kind in KINDS:
        (other.inbox / f"{kind}.toml").write_bytes((studio.outputs / f"{kind}_take01/plan.toml").read_bytes())
    drained = subprocess.run(
        [sys.executable, "-m", "hotfolder", "--workspace", str(other.root), "serve", "--drain"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HOTFOLDER_DEVICE": "cpu", "HOTFOLDER_THREADS": "1"},
        capture_output=True,
        check=False,
        timeout=100,
        text=True,
    )
    assert drained.returncode == 0, drained.stderr
    assert {kind: other.pixels(f"{kind}_take01") for kind in KINDS} == {
        kind: studio.pixels(f"{kind}_take01") for kind in KINDS
    }


def test_a_dropped_sidecar_makes_that_picture_again(studio: Studio) -> None:
    studio.serve()
    studio.drop("mug.toml", f"{KINDS['kontext']}steps = 2\ncount = 3\n")
    studio.wait_for("mug_take01", "completed", timeout_s=60)
    sidecar = studio.outputs / "mug_take01/mug_take01_002.png.toml"
    studio.drop(sidecar.name, sidecar.read_text(encoding="utf-8"))
    studio.wait_for("mug_take02", "completed", timeout_s=60)
    assert studio.pixels("mug_take02") == [studio.pixels("mug_take01")[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_job_leaves_nothing_and_the_next_is_as_if_it_had_never_been(studio: Studio, kind: str) -> None:
    studio.serve()
    studio.drop("fresh.toml", f"{KINDS[kind]}seed = 3\nsteps = 2\n")
    studio.wait_for("fresh_take01", "completed", timeout_s=60)
    studio.drop("long.toml", f"{KINDS[kind]}seed = 3\nsteps = 1000\ncount = 50\n")
    wait_until(lambda: step_of(studio, "long_take01") >= 1, 30)
    (studio.inbox / "long.cancel").touch()
    status = studio.wait_for("long_take01", timeout_s=20)
    assert status["state"] == "cancelled"
    assert not list((studio.outputs / "long_take01").glob("*.png")), "not one of 50 can have been finished"
    stops = [line for line in log_of(studio, "long_take01") if line["event"] == "stopped"]
    assert [line["why"] for line in stops] == [StopReason.CANCEL]
    wait_until(lambda: not (studio.inbox / "long.cancel").exists())
    studio.drop("after.toml", f"{KINDS[kind]}seed = 3\nsteps = 2\n")
    studio.wait_for("after_take01", "completed", timeout_s=20)
    assert studio.pixels("after_take01") == studio.pixels("fresh_take01")


def step_of(studio: Studio, job: str) -> int:
    return int(studio.status(job).get("progress", {}).get("step", 0))


def log_of(studio: Studio, job: str) -> list[dict[str, Any]]:
    text = (studio.outputs / job / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
