"""From a job file to a plan, written, dropped and read again."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import samples
from hypothesis import example, given
from hypothesis import strategies as st

from hotfolder import jobfile, outputs, record, tomltext
from hotfolder.dropped import read_plan, wishes_of_plan
from hotfolder.errors import Problem, Rejected
from hotfolder.kindkeys import MAX_SEED
from hotfolder.plan import Generation, Plan, Source, UsedPreset, digest
from hotfolder.planning import make_plan, wishes_of
from hotfolder.presets import Presets

SHIPPED = Presets.of(Path("/nonexistent"))
#: What can stand in a TOML string that a job may have: no control characters but these three.
PROMPTS = st.text(
    st.characters(
        exclude_categories=["Cs"], exclude_characters=[chr(code) for code in range(32) if chr(code) not in "\n\t\r"]
    ),
    min_size=1,
    max_size=300,
)


def plan_of(text: str, *sources: Source, drawn_seed: int = 7) -> Plan:
    job = jobfile.read(tomltext.parse(text.encode()), SHIPPED, "noise")
    return make_plan("mug_take01", job, sources, drawn_seed)


def picture(role: str = "image", width: int = 640, height: int = 480, *, name: str = "a.png") -> Source:
    file = f"outputs/mug_take01/sources/{name}"
    return Source(role=role, name=name, file=file, sha256="5" * 64, width=width, height=height)


def size_of(plan: Plan) -> tuple[int, int]:
    """Width and height at which the first stage generates."""
    told = generation_of(plan)
    assert told.width is not None
    assert told.height is not None
    return told.width, told.height


def generation_of(plan: Plan) -> Generation:
    """What the first stage, which generates, is told."""
    return plan.item(1).generation(1)


def dropped(data: bytes) -> Plan:
    return read_plan(tomltext.parse(data), SHIPPED)


def problems_of(data: bytes) -> tuple[Problem, ...]:
    with pytest.raises(Rejected) as caught:
        dropped(data)
    return caught.value.problems


FILL = plan_of(
    'preset = "noise-fill"\nprompt = "x"\nimage = "image.png"\nmask = "mask.png"\n',
    picture(name="image.png"),
    picture("mask", name="mask.png"),
)


@given(PROMPTS, st.integers(0, MAX_SEED), st.integers(1, 1000))
@example("a\r\nb\n#! via cli\n#! c", 0, 1)
@example('type = "picture"\n', 0, 1)
@example('"""\\', MAX_SEED, 1000)
@example("\u2028\u0085\x7f\ufeff", 1, 1)
def test_a_plan_reads_back_the_same_from_disk_and_when_dropped(prompt: str, seed: int, count: int) -> None:
    used = UsedPreset(kind="text2img", model=SHIPPED.get("noise").model)
    plan = samples.plan(prompt=prompt, preset="noise", presets={"noise": used}, meta={"text": prompt}, title="spring")
    plan = plan.changed(seed=seed, count=count)
    assert Plan.load(plan.dump()) == plan
    assert dropped(plan.dump()) == plan


def test_a_plan_with_pictures_reads_back_the_same() -> None:
    assert dropped(FILL.dump()) == FILL
    wishes = wishes_of_plan(dropped(FILL.dump()))
    assert [(wish.role, wish.place, wish.sha256) for wish in wishes] == [
        ("image", "outputs/mug_take01/sources/image.png", "5" * 64),
        ("mask", "outputs/mug_take01/sources/mask.png", "5" * 64),
    ]


def test_an_edited_plan_with_windows_line_ends_is_the_same_plan() -> None:
    assert dropped(b"\xef\xbb\xbf" + FILL.dump().replace(b"\n", b"\r\n")) == FILL


def test_a_seed_that_the_job_does_not_give_is_drawn_and_says_so() -> None:
    drawn, given_ = plan_of('prompt = "a"\n', drawn_seed=99), plan_of('prompt = "a"\nseed = 0\n', drawn_seed=99)
    assert (drawn.seed, drawn.seed_from) == (99, "drawn")
    assert (given_.seed, given_.seed_from) == (0, "job")


def test_each_candidate_has_the_next_seed_round_the_end_of_the_range() -> None:
    plan = plan_of(f'prompt = "a"\nseed = {MAX_SEED - 1}\ncount = 4\n')
    assert [plan.seed_of(candidate) for candidate in range(1, 5)] == [MAX_SEED - 1, MAX_SEED, 0, 1]
    assert (plan.items, plan.candidates, plan.item_of(4)) == (1, 4, 1)


@pytest.mark.parametrize(
    ("text", "sources", "size"),
    [
        ('prompt = "a"\n', (), (256, 256)),
        ('prompt = "a"\nwidth = 100\n', (), (96, 256)),
        ('prompt = "a"\naspect = "16:9"\n', (), (336, 192)),
        ('prompt = "a"\naspect = "1:999"\n', (), (16, 8096)),
        ('prompt = "a"\npreset = "flux-dev"\naspect = "1:999"\n', (), (32, 8192)),
        ('prompt = "a"\nimage = "a.png"\n', (picture(width=64, height=48),), (64, 48)),
        ('prompt = "a"\nimage = "a.png"\nwidth = 256\nheight = 256\n', (picture(width=64, height=48),), (256, 256)),
        ('prompt = "a"\nimage = "a.png"\nwidth = 128\n', (picture(width=64, height=48),), (128, 96)),
        ('prompt = "a"\nimage = "a.png"\nheight = 96\n', (picture(width=64, height=48),), (128, 96)),
        ('prompt = "a"\nimage = "a.png"\nwidth = 8192\n', (picture(width=16, height=1600),), (8192, 8192)),
        ('preset = "noise-redux"\nimage = "a.png"\n', (picture(width=64, height=48),), (256, 256)),
        ('preset = "noise-kontext"\nprompt = "a"\nimage = "a.png"\n', (picture(width=100, height=50),), (96, 48)),
        ('preset = "noise-kontext"\nprompt = "a"\nimage = "a.png"\n', (picture(width=3, height=5),), (16, 16)),
        ('preset = "noise-control"\nprompt = "a"\ncontrol = "a.png"\n', (picture("control", 80, 64),), (80, 64)),
    ],
)
def test_the_size_is_the_jobs_else_its_pictures_else_the_presets(
    text: str, sources: tuple[Source, ...], size: tuple[int, int]
) -> None:
    plan = plan_of(text, *sources)
    assert size_of(plan) == size


def test_a_picture_larger_than_the_preset_makes_is_made_smaller_and_the_job_says_so() -> None:
    plan = plan_of('preset = "flux-kontext"\nprompt = "a"\nimage = "a.png"\n', picture(width=6000, height=4000))
    width, height = size_of(plan)
    assert width * height <= 1024 * 1024
    assert width / height == pytest.approx(1.5, abs=0.03)
    assert f"made at {width}x{height} instead of 6000x4000" in plan.notices[0]


@given(st.integers(1, 30_000), st.integers(1, 30_000))
@example(30_000, 1)
def test_sides_are_multiples_of_16_and_never_beyond_the_limits(width: int, height: int) -> None:
    plan = plan_of('prompt = "a"\nimage = "a.png"\n', picture(width=width, height=height))
    for side in size_of(plan):
        assert side % 16 == 0
        assert 16 <= side <= 8192
    assert dropped(plan.dump()) == plan, "what we write is not refused when it is dropped"


def test_a_size_that_had_to_be_changed_is_told() -> None:
    assert plan_of('prompt = "a"\nwidth = 100\nheight = 64\n').notices == (
        "made at 96x64 instead of 100x64: sides are multiples of 16, up to 8192",
    )


def test_strength_is_only_for_a_picture_and_has_a_default() -> None:
    assert generation_of(plan_of('prompt = "a"\n')).strength is None
    assert generation_of(plan_of('prompt = "a"\nimage = "a.png"\n', picture())).strength == 0.6
    assert generation_of(plan_of('prompt = "a"\nimage = "a.png"\nstrength = 0.1\n', picture())).strength == 0.1


def test_true_cfg_of_1_is_no_second_pass() -> None:
    assert generation_of(plan_of('prompt = "a"\ntrue_cfg = 1.0\n')).true_cfg is None
    assert generation_of(plan_of('prompt = "a"\ntrue_cfg = 1.5\n')).true_cfg == 1.5


def test_a_plan_carries_what_is_the_callers_own() -> None:
    plan = plan_of('prompt = "a"\ntitle = "spring"\nproject = "p"\n[meta]\norder = { id = 7 }\n')
    assert (plan.title, plan.project, plan.meta) == ("spring", "p", {"order": {"id": 7}})
    assert tomllib.loads(plan.dump().decode())["meta"] == {"order": {"id": 7}}


def test_pictures_are_wished_for_as_the_job_names_them() -> None:
    job = jobfile.read(
        tomltext.parse(b'preset = "noise-fill"\nimage = "a.png"\nmask = "sub/b.png"\n'), SHIPPED, "noise"
    )
    assert [(wish.role, wish.name, wish.sha256) for wish in wishes_of(job)] == [
        ("image", "a.png", None),
        ("mask", "sub/b.png", None),
    ]


def test_a_dropped_sidecar_is_a_plan_of_that_one_picture() -> None:
    plan = plan_of(
        'preset = "noise-kontext"\nprompt = "a"\nimage = "a.png"\nseed = 5\ncount = 4\n[meta]\nx = 1\n', picture()
    )
    made = samples.record_of(plan, candidate=3)
    sidecar = record.dump(made.model_copy(update={"file_sha256": "f" * 64}))
    again = dropped(sidecar)
    assert (again.seed, again.count, generation_of(again), again.sources, again.meta) == (
        7,
        1,
        generation_of(plan),
        plan.sources,
        plan.meta,
    )


def test_a_sidecar_as_it_is_written_beside_a_picture_can_be_dropped(tmp_path: Path) -> None:
    plan = plan_of('prompt = "a"\ntrue_cfg = 2.0\nnegative_prompt = "b"\n')
    outputs.write(tmp_path, "mug_take01_001", samples.picture(), samples.record_of(plan, candidate=1))
    (sidecar,) = tmp_path.glob("*.png.toml")
    assert generation_of(dropped(sidecar.read_bytes())) == generation_of(plan)


def edited(**changes: Any) -> bytes:
    """The plan of a fill, with other values; `__` goes into a table or a list, None takes a key away."""
    table = tomllib.loads(FILL.dump().decode())
    for key, value in changes.items():
        *where, last = key.split("__")
        target: Any = table
        for part in where:
            target = target[int(part) if part.isdigit() else part]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return tomltext.dump(table)


def _sources(change: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
    rows = tomllib.loads(FILL.dump().decode())["sources"]
    change(rows)
    return list(rows)


FILL_PRESET = tomllib.loads(FILL.dump().decode())["presets"]["noise-fill"]
STAGES = tomllib.loads(FILL.dump().decode())["stages"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"schema": 2}, "newer-schema"),
        ({"presets__noise-fill__model__repo": "evil/pickle"}, "wrong-model"),
        ({"presets__noise-fill__model__dtype": "bfloat16"}, "wrong-model"),
        ({"presets__noise-fill__model__trust_remote_code": True}, "unknown-key"),
        ({"presets__noise-fill__model": None}, "missing-key"),
        ({"presets__noise-fill__kind": "text2img"}, "wrong-model"),
        ({"presets__noise-fill__kind": "clip"}, "wrong-kind"),
        ({"presets__noise-fill__kind": "pickle"}, "bad-value"),
        ({"presets__noise-fill__max_sequence_length": 10**9}, "bad-value"),
        ({"presets__noise-fill__keys": {"steps": 10**9}}, "bad-value"),
        ({"presets": {"noise": FILL_PRESET}, "preset": "noise"}, "wrong-model"),
        ({"presets": {"noise-fil": FILL_PRESET}, "preset": "noise-fil"}, "unknown-preset"),
        ({"presets": None}, "missing-key"),
        ({"preset": "noise"}, "missing-key"),
        ({"preset": "x" * 60_000}, "missing-key"),
        ({"promt": "x"}, "unknown-key"),
        ({"seed": None}, "missing-key"),
        ({"seed": -1}, "bad-value"),
        ({"count": 1001}, "bad-value"),
        ({"priority": 1000}, "bad-value"),
        ({"stages": [STAGES[0]]}, "bad-pipeline"),
        ({"stages": [STAGES[1], STAGES[0]]}, "bad-pipeline"),
        ({"stages": [STAGES[0], STAGES[0], STAGES[1]]}, "bad-pipeline"),
        ({"stages": [{"stage": "rm", "id": "rm"}, STAGES[1]]}, "bad-pipeline"),
        ({"stages": [{"stage": "crop", "id": "crop"}, *STAGES]}, "bad-pipeline"),
        ({"stages": ["generate", "export"]}, "bad-value"),
        ({"stages": []}, "bad-value"),
        ({"title": "x" * 201}, "bad-value"),
        ({"meta": {"x": "y" * 5000}}, "bad-value"),
        ({"stages__0__width": 1_000_000}, "bad-value"),
        ({"stages__0__hieght": 64}, "unknown-key"),
        ({"stages__0__count": 1001}, "bad-value"),
        ({"stages__1__format": "exe"}, "bad-value"),
        ({"keys__width": 1_000_000}, "bad-value"),
        ({"keys__height": 0}, "bad-value"),
        ({"keys__steps": 10**9}, "bad-value"),
        ({"keys__guidance": -1.0}, "bad-value"),
        ({"keys__true_cfg": 4.0}, "wrong-kind"),
        ({"keys__negative_prompt": "x"}, "wrong-kind"),
        ({"keys__strength": 0.5}, "wrong-kind"),
        ({"keys__max_sequence_length": 10**9}, "unknown-key"),
        ({"keys__prompt": "x" * 20_001}, "bad-value"),
        ({"keys__prompt": 3}, "bad-value"),
        ({"keys__hieght": 64}, "unknown-key"),
        ({"keys": 3}, "bad-value"),
        ({"axes": [{"key": "seed", "values": [1, -1]}]}, "bad-value"),
        ({"axes": [{"key": "hieght", "values": [64]}]}, "unknown-key"),
        ({"axes": [{"key": "stage.rm.padding", "values": [1]}]}, "unknown-key"),
        ({"axes": [{"key": "stage.export.quality", "values": [1, 101]}]}, "bad-value"),
        ({"axes": [{"key": "seed", "values": []}]}, "bad-value"),
        ({"sources": None}, "missing-key"),
        ({"sources": _sources(lambda rows: rows.pop())}, "missing-key"),
        ({"sources": _sources(lambda rows: rows.append(rows[0]))}, "bad-value"),
        ({"sources": _sources(lambda rows: rows[0].update(role="control"))}, "missing-key"),
        ({"sources": _sources(lambda rows: rows[0].update(role="seed"))}, "bad-value"),
        ({"sources": _sources(lambda rows: rows[0].update(sha256="x"))}, "bad-value"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_a_plan_that_was_made_up_is_read_as_strictly_as_a_job_file(changes: dict[str, Any], code: str) -> None:
    problems = problems_of(edited(**changes))
    assert code in {problem.code for problem in problems}, problems
    assert all(len(problem.message) < 300 for problem in problems)


def test_the_same_bytes_have_the_same_digest() -> None:
    assert digest(b"mug") == digest(b"mug") != digest(b"mud")


def test_a_stage_is_found_by_its_id_before_another_of_that_name() -> None:
    stages = '[[stages]]\nstage = "generate"\nid = "first"\n[[stages]]\nstage = "select"\n'
    plan = plan_of(f'prompt = "a"\n{stages}[[stages]]\nstage = "generate"\nstrength = 0.5\n')
    assert [plan.number_of(name) for name in ("first", "generate", "select", 3, "x", 9)] == [1, 3, 2, 3, None, None]
