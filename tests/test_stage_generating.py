"""The stages that make pictures: generate with each kind, hires, refine and detail."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from painted import PaintedEngine
from PIL import Image, ImageChops
from tiny_jobs import engine_in, ignore, model_of, pixels, source, stop_at

from hotfolder.engine import Box, Engine, JobStopped, Made, Request, Tick
from hotfolder.gpu import GpuEngine
from hotfolder.plan import Generation
from hotfolder.stagekeys import Detail, Generate, Hires, Refine, StageKeys
from hotfolder.stages import STAGES
from hotfolder.stages.work import Call, Outcome, Stage, UsedModel, Work

TEXT2IMG = UsedModel(preset="noise", kind="text2img", model=model_of("hotfolder/noise"))
REPAINTING = pytest.mark.parametrize(
    ("name", "keys"), [("hires", Hires()), ("refine", Refine()), ("detail", Detail(padding=8, feather=8))]
)
BOX = Box(left=40, top=30, right=80, bottom=60, label="mug")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def engine(workspace: Path) -> Iterator[GpuEngine]:
    engine = engine_in(workspace)
    yield engine
    engine.close()


def run(name: str, keys: StageKeys, work: Work, engine: Engine, **changes: Any) -> Outcome:
    stage = STAGES[name]
    assert isinstance(stage, Stage)
    return stage.run(work, call(keys, engine, **changes))


def call(keys: StageKeys, engine: Engine, *, use: UsedModel = TEXT2IMG, **changes: Any) -> Call:
    seed, tick = changes.pop("seed", 7), changes.pop("tick", ignore)
    told: dict[str, Any] = {"prompt": "a red mug", "steps": 4, "takes": ("image",), "max_sequence_length": 64}
    generation = Generation(**told | changes)
    return Call(
        keys=keys, seed=seed, prompt=generation.prompt, engine=engine, tick=tick, use=use, generation=generation
    )


def of(picture: Image.Image, *boxes: Box, **more: Any) -> Work:
    return Work(pictures={"": picture}, boxes=boxes, **more)


def changed(before: Image.Image, after: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of all pixels that are not the same."""
    return ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox()


# What holds for all three


@REPAINTING
def test_the_same_cell_makes_the_same_pixels_and_another_seed_others(
    engine: GpuEngine, name: str, keys: StageKeys
) -> None:
    work = of(source(128, 96), BOX)
    first = run(name, keys, work, engine)
    assert pixels(run(name, keys, work, engine).work.picture) == pixels(first.work.picture)
    assert pixels(run(name, keys, work, engine, seed=8).work.picture) != pixels(first.work.picture)
    assert pixels(work.picture) == pixels(source(128, 96))  # what came in is left alone
    assert first.model["repo"] == "hotfolder/noise"
    assert first.timings["denoise"] > 0
    assert first.notices == ()


@REPAINTING
def test_a_cell_can_be_stopped_in_between(engine: GpuEngine, name: str, keys: StageKeys) -> None:
    work = of(source(128, 96), BOX)
    with pytest.raises(JobStopped):
        run(name, keys, work, engine, tick=stop_at("denoise", 1))
    run(name, keys, work, engine)


@REPAINTING
def test_the_model_is_asked_for_img2img_with_the_strength_of_the_stage(name: str, keys: StageKeys) -> None:
    painted = PaintedEngine()
    # Whatever a mask or control picture was for, it is not for this.
    work = of(source(128, 96), BOX, mask=Image.new("L", (128, 96)), control=source(128, 96))
    run(name, keys, work, painted, takes=("image", "mask"), strength=0.9, guidance=3.0, width=512, height=512)
    (request,) = painted.made
    assert request.pictures.keys() == {"image"}
    assert request.pictures["image"].size == (request.width, request.height)
    assert (request.width % 16, request.height % 16) == (0, 0)
    assert request.strength == keys.strength  # type: ignore[attr-defined] # all three have it
    assert (request.guidance, request.prompt, request.steps) == (3.0, "a red mug", 4)


@REPAINTING
def test_an_alpha_channel_is_kept(name: str, keys: StageKeys) -> None:
    picture = source(128, 96)
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    made = run(name, keys, of(picture, BOX), PaintedEngine()).work.picture
    assert made.mode == "RGBA"
    alpha, before = made.getchannel("A"), picture.getchannel("A")
    assert alpha.getextrema() == pytest.approx(before.getextrema(), abs=2)
    assert name == "hires" or alpha.tobytes() == before.tobytes()


# hires


@pytest.mark.parametrize(
    ("size", "factor", "wanted"),
    [
        ((128, 96), 1.5, (192, 144)),
        ((128, 128), 2.0, (256, 256)),
        ((100, 60), 1.5, (144, 96)),
        ((40, 40), 1.1, (48, 48)),
    ],
)
def test_hires_makes_a_larger_picture_whose_sides_a_model_can_make(
    engine: GpuEngine, size: tuple[int, int], factor: float, wanted: tuple[int, int]
) -> None:
    done = run("hires", Hires(factor=factor), of(source(*size)), engine)
    assert done.work.picture.size == wanted
    assert done.notices == ()


def test_hires_starts_from_the_enlarged_picture_and_makes_void_what_was_known_of_the_smaller() -> None:
    painted = PaintedEngine()
    picture = source(128, 96)
    done = run("hires", Hires(factor=2.0), of(picture, BOX, mask=Image.new("L", (128, 96))), painted, seed=5)
    (request,) = painted.made
    enlarged = picture.resize((256, 192), Image.Resampling.LANCZOS)
    assert pixels(request.pictures["image"]) == pixels(enlarged)
    assert request.seed == 5
    assert (done.work.boxes, done.work.mask, done.work.control) == ((), None, None)


# refine


@pytest.mark.parametrize("size", [(128, 96), (100, 75), (15, 130), (97, 112)])
def test_refine_gives_back_exactly_the_size_that_came_in(engine: GpuEngine, size: tuple[int, int]) -> None:
    work = of(source(*size), BOX)
    done = run("refine", Refine(), work, engine)
    assert done.work.picture.size == size
    assert done.work.picture.mode == "RGB"
    assert done.work.boxes == work.boxes
    assert done.notices == ()
    assert pixels(done.work.picture) != pixels(work.picture)


def test_refine_repeats_the_edge_up_to_what_a_model_can_make() -> None:
    painted = PaintedEngine()
    picture = source(100, 75)
    run("refine", Refine(), of(picture), painted)
    shown = painted.made[0].pictures["image"]
    assert shown.size == (112, 80)
    assert pixels(shown.crop((0, 0, 100, 75))) == pixels(picture)
    assert shown.crop((100, 0, 112, 75)).tobytes() == picture.crop((99, 0, 100, 75)).resize((12, 75)).tobytes()
    assert shown.getpixel((111, 79)) == picture.getpixel((99, 74))
    run("refine", Refine(), of(source(112, 80)), painted)
    assert pixels(painted.made[1].pictures["image"]) == pixels(source(112, 80))


# detail


@pytest.mark.parametrize("make", [lambda engine: engine, lambda _: PaintedEngine()], ids=["noise", "painted"])
@pytest.mark.parametrize(
    ("box", "region"),
    [
        (Box(left=60, top=50, right=90, bottom=70), (44, 34, 106, 86)),
        (Box(left=0, top=5, right=30, bottom=20), (0, 0, 46, 36)),
        (Box(left=100, top=80, right=128, bottom=96), (84, 64, 128, 96)),
        (Box(left=0, top=0, right=128, bottom=96), (0, 0, 128, 96)),
        (Box(left=64, top=48, right=65, bottom=49), (48, 32, 81, 65)),
    ],
)
def test_detail_leaves_all_pixels_outside_the_region_as_they_are(
    engine: GpuEngine,
    make: Callable[[GpuEngine], Engine],
    box: Box,
    region: tuple[int, int, int, int],
) -> None:
    picture = source(128, 96)
    done = run("detail", Detail(padding=10, feather=6), of(picture, box), make(engine))
    assert done.work.picture.size == picture.size
    where = changed(picture, done.work.picture)
    assert where is not None
    assert region[0] <= where[0] < where[2] <= region[2]
    assert region[1] <= where[1] < where[3] <= region[3]
    outside = Image.new("L", picture.size, 255)
    outside.paste(0, region)
    black = Image.new("RGB", picture.size)
    before, after = (Image.composite(each, black, outside) for each in (picture, done.work.picture))
    assert pixels(before) == pixels(after)
    assert done.work.boxes == (box,)
    assert done.facts == {"regions": [[box.left, box.top, box.right, box.bottom]]}


def test_detail_passes_softly_into_the_picture_but_not_at_its_edges() -> None:
    grey = Image.new("RGB", (200, 100), (128, 128, 128))
    box = Box(left=0, top=40, right=80, bottom=60)
    made = run("detail", Detail(padding=0, feather=20), of(grey, box), PaintedEngine()).work.picture
    flat = made.getpixel((0, 50))
    assert isinstance(flat, tuple)
    row = [made.getpixel((x, 50)) for x in range(200)]
    assert row[:80] == [flat] * 80
    assert row[100:] == [(128, 128, 128)] * 100
    distances = [sum(abs(a - 128) for a in pixel) for pixel in row if isinstance(pixel, tuple)]
    assert distances[79:101] == sorted(distances[79:101], reverse=True)
    assert len(set(distances[80:100])) > 5


def test_detail_works_on_the_largest_first_each_with_noise_of_its_own_on_what_the_last_left() -> None:
    painted = PaintedEngine()
    small = Box(left=50, top=50, right=60, bottom=60, label="Mug", score=0.9)
    large = Box(left=40, top=40, right=100, bottom=90, label="mug", score=0.5)
    cat = Box(left=0, top=0, right=120, bottom=90, label="cat")
    seen: list[tuple[str, int, int]] = []
    keys = Detail(label="mug", padding=0, feather=0)
    work = of(source(128, 96), small, cat, large)
    done = run("detail", keys, work, painted, seed=7, tick=lambda *now: seen.append(now))
    assert [request.seed for request in painted.made] == [7, 8]
    assert done.facts == {"regions": [[40, 40, 100, 90], [50, 50, 60, 60]]}
    # The second was shown what the first had painted: one colour.
    assert len(set(painted.made[1].pictures["image"].get_flattened_data())) == 1
    assert len(set(painted.made[0].pictures["image"].get_flattened_data())) > 1
    assert [now for now in seen if now[0] == "region"] == [("region", 0, 2), ("region", 1, 2), ("region", 2, 2)]


@pytest.mark.parametrize(
    ("size", "box", "told", "worked_on"),
    [
        # As many pixels as the preset makes, in the shape of the region ...
        ((400, 400), (100, 100, 200, 200), {"width": 256, "height": 256}, (256, 256)),
        ((400, 400), (0, 100, 200, 150), {"width": 256, "height": 256}, (512, 128)),
        # ... but not more than four times as large, and never smaller than it is.
        ((400, 400), (100, 100, 132, 132), {}, (128, 128)),
        ((400, 400), (0, 0, 400, 400), {"width": 64, "height": 64}, (400, 400)),
        ((2000, 1500), (100, 100, 1100, 1100), {}, (1024, 1024)),
    ],
)
def test_detail_works_at_the_resolution_of_the_model(
    size: tuple[int, int], box: tuple[int, int, int, int], told: dict[str, int], worked_on: tuple[int, int]
) -> None:
    painted = PaintedEngine()
    left, top, right, bottom = box
    found = Box(left=left, top=top, right=right, bottom=bottom)
    run("detail", Detail(padding=0, feather=0), of(source(*size), found), painted, **told)
    assert (painted.made[0].width, painted.made[0].height) == worked_on


def test_detail_sums_what_its_regions_took_and_says_each_notice_once() -> None:
    class Slow(PaintedEngine):
        def make(self, request: Request, tick: Tick) -> Made:
            took = {"load": 0.5 * (not self.made), "denoise": 1.5}
            return replace(super().make(request, tick), timings=took, notices=("decoded in tiles",))

    boxes = (BOX, Box(left=90, top=60, right=120, bottom=90))
    done = run("detail", Detail(padding=4, feather=4), of(source(128, 96), *boxes), Slow())
    assert done.timings == {"load": 0.5, "denoise": 3.0}
    assert done.notices == ("decoded in tiles",)


@pytest.mark.parametrize(
    ("label", "boxes", "notice"),
    [
        (None, (), "nothing was found in the picture: it is as it was"),
        ("face", (), "no 'face' was found in the picture: it is as it was"),
        ("face", (BOX,), "no 'face' was found in the picture: it is as it was"),
    ],
)
def test_detail_without_anything_to_repaint_changes_nothing_and_says_so(
    label: str | None, boxes: tuple[Box, ...], notice: str
) -> None:
    painted = PaintedEngine()
    work = of(source(128, 96), *boxes)
    seen: list[tuple[str, int, int]] = []
    done = run("detail", Detail(label=label), work, painted, tick=lambda *now: seen.append(now))
    assert done.work is work
    assert done.notices == (notice,)
    assert painted.made == []
    assert seen


# generate, with what an earlier stage gave


def test_generate_outpaints_what_a_padded_picture_lacks(engine: GpuEngine) -> None:
    canvas = Image.new("RGB", (192, 128), "gray")
    canvas.paste(source(128, 128), (32, 0))
    mask = Image.new("L", canvas.size, 255)
    mask.paste(0, (32, 0, 160, 128))
    use = UsedModel(preset="noise-fill", kind="fill", model=model_of("hotfolder/noise-fill"))
    done = run("generate", Generate(), of(canvas, mask=mask), engine, use=use, takes=("image", "mask"), guidance=30.0)
    assert done.work.picture.size == (192, 128)
    assert pixels(done.work.picture.crop((32, 0, 160, 128))) == pixels(source(128, 128))
    assert changed(canvas, done.work.picture) == (0, 0, 192, 128)
    assert (done.work.mask, done.notices) == (None, ())


def test_generate_follows_a_control_map_and_takes_its_size(engine: GpuEngine) -> None:
    use = UsedModel(preset="noise-control", kind="control", model=model_of("hotfolder/noise-control"))
    keys = Generate()
    made = [
        run("generate", keys, of(source(64, 64), control=map_), engine, use=use, takes=("control",)).work.picture
        for map_ in (source(128, 96), source(128, 96).rotate(180))
    ]
    assert [picture.size for picture in made] == [(128, 96)] * 2
    assert pixels(made[0]) != pixels(made[1])


@pytest.mark.parametrize(
    ("kind", "base", "told", "size"),
    [
        ("kontext", {}, {}, (128, 96)),
        ("redux", {"base": "hotfolder/noise"}, {"width": 112, "height": 80}, (112, 80)),
        ("text2img", {}, {"strength": 0.6}, (128, 96)),
    ],
)
def test_generate_makes_a_picture_from_what_came_in(
    engine: GpuEngine, kind: str, base: dict[str, str], told: dict[str, Any], size: tuple[int, int]
) -> None:
    name = "noise" if kind == "text2img" else f"noise-{kind}"
    use = UsedModel(preset=name, kind=kind, model=model_of(f"hotfolder/{name}", **base))
    made = [
        run("generate", Generate(), work, engine, use=use, **told).work.picture
        for work in (of(source(130, 100)), of(source(130, 100).rotate(180)))
    ]
    assert [picture.size for picture in made] == [size] * 2
    assert pixels(made[0]) != pixels(made[1])


def test_generate_from_the_prompt_alone_needs_nothing(engine: GpuEngine) -> None:
    done = run("generate", Generate(), Work(), engine, width=64, height=48, takes=("image",))
    assert done.work.picture.size == (64, 48)
    again = run("generate", Generate(), replace(done.work, pictures={}), engine, width=64, height=48)
    assert pixels(again.work.picture) == pixels(done.work.picture)
