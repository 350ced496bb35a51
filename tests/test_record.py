import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import FACTS, MODEL, made, picture, plan, record_of, source

from hotfolder import __version__
from hotfolder.dropped import read_plan
from hotfolder.errors import JobError
from hotfolder.presets import Presets
from hotfolder.record import Record, dump, load, pixels_sha256, versions
from hotfolder.tomltext import parse

NASTY_PROMPT = 'line one\r\n#! not a note\n"""three""" \'\'\' \\u0041 = [x]\n\ttab, ü, 🫖'

PRESET = """
kind = "{kind}"
[model]
repo = "{repo}"
revision = "main"
dtype = "bfloat16"
"""


@pytest.fixture
def presets(tmp_path: Path) -> Presets:
    own = tmp_path / "presets"
    own.mkdir()
    (own / "flux-dev.toml").write_text(PRESET.format(kind="text2img", repo=MODEL.repo))
    return Presets(shipped=tmp_path / "none", own=own)


def test_a_sidecar_says_of_its_picture_what_the_plan_says_of_the_job() -> None:
    record = record_of(plan(title="spring", project="shop", meta={"sku": 7}, notices=("rounded",)), candidate=3)

    assert (record.job, record.item, record.candidate) == ("mug_take01", 1, 3)
    assert record.seed == 44
    assert record.generate is not None
    assert record.prompt == record.generate.prompt == "a mug"
    assert (record.title, record.project, record.meta) == ("spring", "shop", {"sku": 7})
    assert record.pixels_sha256 == pixels_sha256(picture())


def test_a_record_comes_back_from_its_sidecar_unchanged() -> None:
    record = record_of(
        plan(
            prompt=NASTY_PROMPT, sources=[source(), source("mask", "m.png")], meta={"a": {"b": [1, "x"]}}, strength=0.5
        ),
        result=made(notices=("tiled VAE", "prompt cut at 512 tokens")),
    )

    assert load(dump(record)) == record


@given(prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(deadline=None, max_examples=60)
def test_any_prompt_survives_the_sidecar(prompt: str) -> None:
    assert load(dump(record_of(plan(prompt=prompt)))).prompt == prompt


def test_a_sidecar_begins_with_its_schema_and_type_and_writes_rows_as_blocks() -> None:
    text = dump(record_of(plan(sources=[source()], notices=("rounded",)))).decode()

    assert text.startswith('schema = 1\ntype = "picture"\n')
    assert '[[notices]]\ntext = "rounded"\n' in text
    assert text.count("[[stages]]") == 2
    assert text.count("[[sources]]") == 1
    for table in ("[generate]", "[model]", "[versions]", "[timings]"):
        assert f"\n{table}\n" in text
    assert "\ncreated_at = 2026-11-20T12:00:00.123Z\n" in text


def test_a_dropped_sidecar_makes_this_one_picture_again(presets: Presets) -> None:
    job = plan(prompt=NASTY_PROMPT, sources=[source()], strength=0.5, title="spring", meta={"sku": 7})
    sidecar = dump(record_of(job, candidate=3))

    again = read_plan(parse(sidecar), presets)

    assert again.seed == job.seed_of(3)
    assert again.candidates == 1
    assert (again.preset, again.presets) == (job.preset, job.presets)
    assert (again.item(1).generation(1), again.sources) == (job.item(1).generation(1), job.sources)
    assert (again.title, again.meta) == (job.title, job.meta)


def test_what_the_engine_used_instead_does_not_hide_what_the_preset_says(presets: Presets) -> None:
    facts = {**FACTS, "repo": MODEL.repo, "revision": "0123abcd", "dtype": "float32", "speed": "fast"}
    record = record_of(result=made(facts))

    assert record.model["revision"] == "main"
    assert record.model["commit"] == "0123abcd"
    assert record.model["dtype"] == "bfloat16"
    assert record.model["used_dtype"] == "float32"
    assert "used_repo" not in record.model
    assert record.model["device"] == "cpu"
    assert record.speed == "fast"
    assert read_plan(parse(dump(record)), presets).presets["flux-dev"].model == MODEL


def test_the_stages_hand_the_hashes_on() -> None:
    generate, export = record_of(plan(sources=[source()])).stages

    assert (generate.number, generate.name, generate.took) == (1, "generate", ("5" * 64,))
    assert generate.gave == export.took == export.gave == (pixels_sha256(picture()),)


def test_a_notice_of_plan_and_engine_is_said_once() -> None:
    record = record_of(plan(notices=("rounded", "second pass")), result=made(notices=("second pass", "tiled VAE")))

    assert record.notices == ("rounded", "second pass", "tiled VAE")


@pytest.mark.parametrize(
    "other",
    [
        Image.new("RGB", (3, 2), "black"),
        Image.new("RGB", (2, 3), (0, 0, 1)),
        Image.new("YCbCr", (2, 3), (0, 0, 0)),
    ],
    ids=["turned", "one value", "mode"],
)
def test_pictures_that_differ_in_mode_size_or_one_value_have_different_hashes(other: Image.Image) -> None:
    black = Image.new("RGB", (2, 3), "black")

    assert pixels_sha256(black) == pixels_sha256(black.copy())
    assert pixels_sha256(other) != pixels_sha256(black)


def test_a_sidecar_of_a_newer_schema_is_refused_by_name() -> None:
    newer = dump(record_of()).replace(b"schema = 1", b"schema = 2", 1)

    with pytest.raises(JobError, match="mug_take01 has schema 2") as caught:
        load(newer)

    assert caught.value.code == "newer-schema"


@pytest.mark.parametrize(
    "broken",
    [b"", b"schema = 1", b"\xff\xfe", b"schema = ", b"x = " + b"[" * 5000, b'type = "plan"', dump(record_of())[:300]],
    ids=["empty", "too little", "no text", "no TOML", "too deep", "a plan", "cut off"],
)
def test_a_broken_sidecar_is_a_value_error(broken: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of which kind is left open
        load(broken)


def test_a_sidecar_of_the_same_schema_may_say_more_than_we_know() -> None:
    record = record_of()
    more = dump(record).replace(b'type = "picture"', b'type = "picture"\nmood = "sunny"', 1)

    assert load(more) == record


def test_the_record_inside_the_picture_is_the_same_as_json() -> None:
    record = record_of(plan(prompt=NASTY_PROMPT, sources=[source()], notices=("rounded",)))

    assert Record.model_validate_json(record.model_dump_json(by_alias=True, exclude_none=True)) == record


def test_versions_are_told_without_loading_what_they_are_of() -> None:
    code = "import sys; from hotfolder import record; print(record.versions()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)

    said, loaded = done.stdout.splitlines()
    assert loaded == "False"
    assert said == str(versions())
    assert versions()["hotfolder"] == __version__
    assert {"python", "torch", "diffusers", "transformers", "pillow"} <= versions().keys()


def test_timings_are_rounded_for_the_eye() -> None:
    table = tomllib.loads(dump(record_of().model_copy(update={"timings": {"load": 0.123456789}})).decode())

    assert table["timings"] == {"load": 0.1235}
