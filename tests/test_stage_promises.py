"""What every stage that works on pictures promises."""

import subprocess
import sys
from typing import Any

import pytest
from PIL import Image
from stage_calls import AskedEngine, Ticks, choose, cut_out, photo, picture_of, run

from hotfolder.engine import Answer, Box, JobStopped, Question, StopReason
from hotfolder.stagekeys import STAGE_KEYS
from hotfolder.stages.work import Work


def answer(question: Question) -> Answer:
    """What a helper model of each kind would say."""
    (picture,) = question.pictures
    if question.kind == "upscale":
        return Answer(image=picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST))
    if question.kind == "detect":
        return Answer(boxes=(Box(left=0, top=0, right=1, bottom=1, label=question.text, score=0.5),))
    return Answer(image=picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


#: Stages and keys that go with a picture of any size and content.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("prepare", {}),
    ("prepare", {"control": "canny"}),
    ("prepare", {"control": "depth"}),
    ("prepare", {"control": "pose", "preset": "skeleton"}),
    ("upscale", {"factor": 1.7}),
    ("upscale", {"factor": 3.0, "by": "model"}),
    ("detect", {"by": "finder", "label": "mug"}),
    ("crop", {"aspect": "4:5"}),
    ("crop", {"box": [0, 0, 1, 1], "padding": 3, "aspect": "1:1"}),
    ("resize", {"width": 33, "height": 21}),
    ("resize", {"width": 33, "height": 21, "fit": "contain", "color": "#11223344"}),
    ("resize", {"height": 21}),
    ("pad", {"left": 3, "aspect": "1:1"}),
    ("rotate", {"degrees": 90.0}),
    ("rotate", {"degrees": -33.0, "color": "navy"}),
    ("grayscale", {}),
    ("color", {"autocontrast": True, "gamma": 1.4, "brightness": 1.1, "contrast": 0.8, "saturation": 1.5}),
    ("overlay", {"text": "Hi\nthere", "opacity": 0.5}),
    ("cleanup", {"denoise": 0.5, "sharpen": 1.0, "despeckle": True}),
    ("variants", {"aspects": ["1:1", "16:9"], "gravity": "subject"}),
]
PICTURES = {
    "odd": photo(61, 47),
    "one pixel wide": photo(1, 40),
    "one pixel high": photo(40, 1),
    "one pixel": Image.new("RGB", (1, 1), "teal"),
    "with alpha": cut_out(64, 48),
}
ids = [f"{stage}-{'-'.join(map(str, keys.values()))}" for stage, keys in CASES]
every_case = pytest.mark.parametrize(("stage", "keys"), CASES, ids=ids)
every_picture = pytest.mark.parametrize("given", PICTURES.values(), ids=PICTURES)


def pixels(work: Work) -> list[tuple[str, str, tuple[int, int], bytes]]:
    pictures = dict(work.pictures) | {"mask": work.mask, "control": work.control}
    return [(name, found.mode, found.size, found.tobytes()) for name, found in pictures.items() if found]


@every_case
@every_picture
def test_a_stage_makes_the_same_again_and_leaves_its_input_alone(
    stage: str, keys: dict[str, Any], given: Image.Image
) -> None:
    before = given.tobytes()
    outcomes = [run(stage, given, AskedEngine(answer), **keys) for _ in range(2)]

    assert pixels(outcomes[0].work) == pixels(outcomes[1].work)
    assert (outcomes[0].work.boxes, outcomes[0].facts) == (outcomes[1].work.boxes, outcomes[1].facts)
    assert given.tobytes() == before


@every_case
@every_picture
def test_a_stage_gives_what_a_file_can_hold(stage: str, keys: dict[str, Any], given: Image.Image) -> None:
    work = run(stage, given, AskedEngine(answer), **keys).work

    assert {picture.mode for picture in work.pictures.values()} <= {"RGB", "RGBA"}
    assert work.mask is None or (work.mask.mode, work.mask.size) == ("L", work.picture.size)
    assert work.control is None or (work.control.mode, work.control.size) == ("RGB", work.picture.size)


@every_case
def test_a_stage_keeps_transparency(stage: str, keys: dict[str, Any]) -> None:
    work = run(stage, cut_out(), AskedEngine(answer), **keys).work
    assert {picture.mode for picture in work.pictures.values()} == {"RGBA"}


@every_case
def test_a_stage_can_be_stopped_before_it_begins(stage: str, keys: dict[str, Any]) -> None:
    def stop(phase: str, step: int, steps: int, /) -> None:
        assert phase == stage
        raise JobStopped(StopReason.CANCEL)

    engine = AskedEngine(answer)
    with pytest.raises(JobStopped):
        run(stage, photo(40, 30), engine, tick=stop, **keys)
    assert not engine.asked


@every_case
def test_a_stage_hands_on_what_stays_true_and_drops_what_its_keys_say_it_voids(
    stage: str, keys: dict[str, Any]
) -> None:
    given = Work(
        pictures={"": photo(40, 30)},
        mask=Image.new("L", (40, 30), "white"),
        control=Image.new("RGB", (40, 30), "white"),
        boxes=(Box(left=1, top=1, right=5, bottom=5),),
    )
    parsed = STAGE_KEYS[stage].model_validate(keys)
    made = run(stage, given, AskedEngine(answer), **keys).work

    for thing, before, after, nothing in (
        ("mask", given.mask, made.mask, None),
        ("control", given.control, made.control, None),
        ("boxes", given.boxes, made.boxes, ()),
    ):
        if thing in parsed.gives:
            assert after is not before
            assert after != nothing
        elif thing in parsed.voids:
            assert after == nothing
        else:
            assert after is before


@pytest.mark.parametrize(
    ("stage", "keys"), [case for case in CASES if STAGE_KEYS[case[0]].model_validate(case[1]).takes_variants]
)
def test_a_stage_that_takes_variants_does_to_each_what_it_does_to_one(stage: str, keys: dict[str, Any]) -> None:
    wide, high = photo(48, 20), photo(20, 48)
    tick = Ticks()
    made = run(stage, Work(pictures={"16x9": wide, "9x16": high}), AskedEngine(answer), tick=tick, **keys).work

    alone = {
        name: picture_of(stage, given, AskedEngine(answer), **keys) for name, given in (("16x9", wide), ("9x16", high))
    }
    assert {name: picture.tobytes() for name, picture in made.pictures.items()} == {
        name: picture.tobytes() for name, picture in alone.items()
    }
    assert sum(phase == stage for phase, _, _ in tick.came) >= 2


def test_choosing_can_be_stopped_before_it_begins() -> None:
    tick = Ticks()
    choose([photo(20, 10)], tick=tick)
    assert tick.came[0] == ("select", 0, 0)


def test_no_stage_loads_what_makes_pictures() -> None:
    loading = "; ".join(f"import hotfolder.stages.{stage}" for stage in {stage for stage, _ in CASES} | {"select"})
    heavy = "{'torch', 'diffusers', 'transformers', 'scipy', 'cv2'}"
    script = f"import sys; {loading}; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"
