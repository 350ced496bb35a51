"""What a job file may say: every problem at once, each at its line, with what would be accepted."""

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotfolder import advice, jobfile, lanes, tomltext
from hotfolder.errors import CODES, Problem, Rejected, SettingsError
from hotfolder.jobfile import JobFile
from hotfolder.lanes import LaneDefaults
from hotfolder.presets import Presets

SHIPPED = Presets.of(Path("/nonexistent"))


def read(text: str, *, lane: LaneDefaults = lanes.NO_DEFAULTS, presets: Presets = SHIPPED) -> JobFile:
    return jobfile.read(tomltext.parse(text.encode()), presets, "noise", lane)


def name_of(job: JobFile) -> str | None:
    """The preset of the job."""
    return job.preset.name if job.preset else None


def problems_of(text: str, *, lane: LaneDefaults = lanes.NO_DEFAULTS) -> tuple[Problem, ...]:
    with pytest.raises(Rejected) as caught:
        read(text, lane=lane)
    return caught.value.problems


def lane_of(text: str, file: str = "folder.toml") -> LaneDefaults:
    return lanes.read_text(tomltext.parse(text.encode()), file)


def test_a_prompt_is_enough() -> None:
    job = read('prompt = "a mug"\n')
    assert (name_of(job), job.keys.prompt, job.keys.count, job.keys.seed) == ("noise", "a mug", 1, None)
    assert job.get("steps") == 8, "from the preset"
    assert job.get("guidance") == 3.5


def test_what_the_job_says_goes_before_its_lane_and_that_before_the_preset() -> None:
    lane = lane_of("steps = 5\nguidance = 2\n")
    job = read('prompt = "a mug"\nsteps = 3\n', lane=lane)
    assert (job.get("steps"), job.get("guidance")) == (3, 2.0)


def test_every_problem_is_told_at_once_and_at_its_line() -> None:
    text = """\
# a job with everything wrong
prompt = 3
seeds = 7
count = 1001

strength = 0.5
mask = "mask.png"
[schedule]
cron = "61 * * * *"
timezone = "Mars/Olympus"
"""
    found = [(problem.line, problem.code) for problem in problems_of(text)]
    assert found == [
        (2, "bad-value"),
        (3, "unknown-key"),
        (4, "bad-value"),
        (6, "missing-key"),
        (7, "wrong-kind"),
        (9, "bad-value"),
        (10, "bad-value"),
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("promt", "did you mean prompt?"),
        ("seeds", "did you mean seed?"),
        ("hieght", "did you mean height?"),
        ("true_cfq", "did you mean true_cfg?"),
        ("model", "preset"),
        ("cfg_scale", "true_cfg"),
        ("num_inference_steps", "steps"),
        ("denoising_strength", "strength"),
        ("zzz", "docs/job-file.md"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(key: str, hint: str) -> None:
    (problem,) = problems_of(f'prompt = "a mug"\n{key} = 1\n')
    assert (problem.code, problem.line) == ("unknown-key", 2)
    assert key in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        ("seed = -1", "0 to 4294967295"),
        ("seed = 4294967296", "0 to 4294967295"),
        ("count = 0", "1 to 1000"),
        ("count = 1001", "1 to 1000"),
        ("priority = 101", "-100 to 100"),
        ("steps = 0", "1 to 1000"),
        ("steps = 1001", "1 to 1000"),
        ("width = 8", "16 to 8192"),
        ("height = 100000", "16 to 8192"),
        ("guidance = 101.0", "0 to 100"),
        ("true_cfg = 0.5", "1 to 100"),
        ('image = "a.png"\nstrength = 0.0', "above 0 to 1"),
        ('image = "a.png"\nstrength = 1.5', "above 0 to 1"),
        ('aspect = "16x9"', '"16:9"'),
        ('aspect = "0:9"', '"16:9"'),
        ('aspect = "1000:1"', '"16:9"'),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(line: str, accepted: str) -> None:
    (problem,) = problems_of(f'prompt = "a mug"\n{line}\n')
    assert problem.code == "bad-value"
    assert accepted in problem.hint, problem
    assert line.rpartition("\n")[2].partition(" ")[0] in problem.message


@pytest.mark.parametrize(
    "line",
    [
        'steps = "many"',
        "steps = 8.0",
        "steps = true",
        "seed = 1.5",
        "prompt = 3",
        'prompt = ["a", "b"]',
        "image = 1",
        'image = ""',
        "title = 2026-11-20",
        "preset = 5",
        'preset = ""',
        "aspect = 1.5",
        "meta = 3",
        "schedule = 1",
    ],
)
def test_a_value_of_the_wrong_type_is_refused_at_its_line(line: str) -> None:
    text = f"{line}\n" if line.startswith("prompt") else f'{line}\nprompt = "a mug"\n'
    (problem,) = problems_of(text)
    assert problem.code in {"bad-value", "unknown-preset"}
    assert problem.line == 1
    assert line.partition(" ")[0] in problem.message


def test_whole_numbers_are_accepted_where_fractions_are() -> None:
    assert read('prompt = "a mug"\nguidance = 3\n').get("guidance") == 3.0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_are_refused(value: str) -> None:
    (problem,) = problems_of(f'prompt = "a mug"\nguidance = {value}\n')
    assert (problem.code, problem.line) == ("bad-value", 2)


@pytest.mark.parametrize(
    ("preset", "line", "takers"),
    [
        ("noise-fill", "true_cfg = 4.0", "text2img, kontext"),
        ("noise-fill", 'negative_prompt = "blur"\ntrue_cfg = 4.0', "text2img, kontext"),
        ("noise-control", "true_cfg = 4.0", "text2img, kontext"),
        ("noise-redux", "true_cfg = 4.0", "text2img, kontext"),
        ("noise", 'mask = "m.png"', "fill"),
        ("noise", 'control = "c.png"', "control"),
        ("noise", "image_strength = 0.5", "redux"),
        ("noise-kontext", "strength = 0.5", "text2img"),
    ],
)
def test_a_kind_refuses_by_name_the_keys_that_it_does_not_take(preset: str, line: str, takers: str) -> None:
    pictures = 'image = "a.png"\n' if preset != "noise-control" else ""
    pictures += 'mask = "b.png"\n' if preset == "noise-fill" else 'control = "b.png"\n' if "control" in preset else ""
    problems = problems_of(f'preset = "{preset}"\nprompt = "a mug"\n{pictures}{line}\n')
    assert {problem.code for problem in problems} == {"wrong-kind"}
    assert line.partition(" ")[0] in problems[0].message
    assert repr(preset) in problems[0].message
    assert problems[0].hint == f"{takers} would"


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("seed = 1\n", ["a prompt or an image"]),
        ('prompt = ""\n', ["a prompt or an image"]),
        ('preset = "noise-kontext"\n', ["needs prompt", "needs image"]),
        ('preset = "noise-kontext"\nprompt = "blue"\n', ["needs image"]),
        ('preset = "noise-fill"\nprompt = "blue"\n', ["needs image", "needs mask"]),
        ('preset = "noise-control"\nprompt = "blue"\n', ["needs control"]),
        ('preset = "noise-redux"\n', ["needs image"]),
    ],
)
def test_what_a_kind_needs_is_asked_for_by_name(text: str, needs: list[str]) -> None:
    problems = problems_of(text)
    assert [problem.code for problem in problems] == ["missing-key"] * len(needs)
    assert all(need in problem.message for need, problem in zip(needs, problems, strict=True))


def test_pictures_are_read_by_role() -> None:
    job = read('preset = "noise-fill"\nimage = "a.png"\nmask = "sub/b.png"\n')
    assert job.pictures == {"image": ("a.png",), "mask": ("sub/b.png",)}


def test_a_negative_prompt_needs_true_cfg_which_costs_a_second_pass() -> None:
    for line in ("", "true_cfg = 1.0\n"):
        (problem,) = problems_of(f'prompt = "a mug"\n{line}negative_prompt = "blur"\n')
        assert problem.code == "missing-key"
        assert "true_cfg above 1" in problem.message
    job = read('prompt = "a mug"\ntrue_cfg = 4.0\nnegative_prompt = "blur"\n')
    assert "second pass" in job.notices[0]
    assert not read('prompt = "a mug"\ntrue_cfg = 1.0\n').notices


def test_a_second_pass_that_the_preset_asks_for_is_used_and_goes_unmentioned(tmp_path: Path) -> None:
    (tmp_path / "guided.toml").write_text('extends = "noise"\n[keys]\ntrue_cfg = 2.0\n')
    job = read('preset = "guided"\nprompt = "a mug"\nnegative_prompt = "blur"\n', presets=Presets.of(tmp_path))
    assert job.keys.true_cfg == 2.0  # type: ignore[attr-defined]
    assert not job.notices


def test_strength_needs_a_picture_to_start_from() -> None:
    (problem,) = problems_of('prompt = "a mug"\nstrength = 0.5\n')
    assert (problem.code, problem.line) == ("missing-key", 2)


def test_a_preset_that_is_not_there_is_refused_with_the_nearest() -> None:
    (problem,) = problems_of('prompt = "a mug"\npreset = "noise-fil"\nmask = "m.png"\nimage = "a.png"\n')
    assert (problem.code, problem.line) == ("unknown-preset", 2)
    assert "did you mean 'noise-fill'" in problem.hint
    assert "flux-dev" in problem.hint


def test_a_wrong_preset_hides_no_other_problem() -> None:
    problems = problems_of('preset = "noise-fil"\nprompt = 3\nsteps = 0\nhieght = 3\n')
    assert [problem.line for problem in problems] == [1, 2, 3, 4]


def test_a_preset_that_the_job_did_not_choose_is_blamed_on_who_did() -> None:
    (problem,) = problems_of('prompt = "a mug"\n', lane=lane_of('preset = "tinny"\n', "night/folder.toml"))
    assert problem.message.startswith("night/folder.toml: there is no preset 'tinny'")
    with pytest.raises(Rejected, match=r"default_preset of hotfolder.toml: there is no preset 'tinny'"):
        jobfile.read(tomltext.parse(b'prompt = "a mug"\n'), SHIPPED, "tinny")


def test_a_service_is_refused_with_the_reason_and_the_nearest_preset() -> None:
    (problem,) = problems_of('preset = "flux-pro"\nprompt = "a mug"\n')
    assert problem.code == "service-only"
    assert "weights are not published" in problem.message
    assert "flux-dev" in problem.hint


@pytest.mark.parametrize("name", ["../tiny", "/etc/passwd", "tiny.toml", "x" * 60_000])
def test_a_preset_is_a_name_and_no_path(name: str) -> None:
    (problem,) = problems_of(f'preset = "{name}"\nprompt = "a mug"\n')
    assert problem.code in {"unknown-preset", "bad-value"}
    assert len(problem.message) < 200


def test_messages_stay_short_and_can_be_shown_whatever_the_keys_are() -> None:
    text = f'prompt = "a mug"\n{"k" * 60_000} = 1\n'
    assert all(len(str(problem)) < 300 for problem in problems_of(text))
    (problem,) = problems_of('prompt = "a mug"\n"a\\u001b[31m\\u202e" = 1\n')
    assert str(problem).isprintable()
    assert problem.line == 2


def test_thousands_of_problems_are_counted_and_not_listed() -> None:
    problems = problems_of('prompt = "a mug"\n' + "".join(f"k{number} = 1\n" for number in range(5_000)))
    assert len(problems) <= 101
    assert problems[-1].message == "and 4900 problems more"


def test_the_export_that_is_added_counts_among_the_stages() -> None:
    text = "".join(f'[[stages]]\nstage = "generate"\nid = "g{number}"\nadd = true\n' for number in range(64))
    (problem,) = problems_of(f'prompt = "a mug"\n{text}')
    assert (problem.code, problem.line) == ("bad-pipeline", 2)
    assert "65 stages, with the export at the end; at most 64 are accepted" in problem.message


@pytest.mark.parametrize("key", ["preset", "stage.generate.preset", "prompt", "image"])
def test_a_list_is_no_value_of_an_axis(key: str) -> None:
    problems = problems_of(f'prompt = "a mug"\n[matrix]\n{key} = [["noise"]]\n')
    assert {(problem.code, problem.line) for problem in problems} == {("bad-value", 3)}


def test_meta_is_free_and_bounded() -> None:
    job = read('prompt = "a mug"\n[meta]\norder = 7\nnested = { a = [1, { b = 2026-11-20 }] }\n')
    assert job.keys.meta["order"] == 7
    (problem,) = problems_of(f'prompt = "a mug"\n[meta]\ntext = "{"x" * 4096}"\n')
    assert "4096 are accepted" in problem.message
    assert problem.line == 2


@pytest.mark.parametrize(
    "schedule",
    [
        "at = 2026-11-20T06:00:00Z",
        "at = 2026-11-20T06:00:00",
        'cron = "0 2 * * *"',
        'cron = "*/15 8-18 1,15 jan-mar mon-fri"\ntimezone = "Europe/Berlin"\ncatch_up = true',
        'cron = "0 0 * * 7"',
    ],
)
def test_a_schedule_is_accepted(schedule: str) -> None:
    assert read(f'prompt = "a mug"\n[schedule]\n{schedule}\n').keys.schedule


@pytest.mark.parametrize(
    ("schedule", "key"),
    [
        ("", "exactly one of at and cron"),
        ('at = 2026-11-20T06:00:00Z\ncron = "0 2 * * *"', "exactly one of at and cron"),
        ('at = "tomorrow"', "schedule.at"),
        ("at = 2026-11-20", "schedule.at"),
        ('cron = "0 2 * *"', "five: minute hour day month weekday"),
        ('cron = "60 * * * *"', "minute 60: accepted are 0 to 59"),
        ('cron = "0 24 * * *"', "hour"),
        ('cron = "0 0 0 * *"', "day"),
        ('cron = "0 0 * foo *"', "month 'foo'"),
        ('cron = "0 0 * * mon-"', "weekday"),
        ('cron = "5-1 * * * *"', "runs backwards"),
        ('cron = "*/0 * * * *"', "step"),
        ('cron = "@daily"', "five"),
        ('cron = "0 2 * * *"\ntimezone = "Mars/Olympus"', "schedule.timezone"),
        ('cron = "0 2 * * *"\ntimezone = "../../etc/passwd"', "schedule.timezone"),
        ('cron = "0 2 * * *"\ncatch_up = 1', "schedule.catch_up"),
        ('cron = "0 2 * * *"\nevery = 5', "schedule.every"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(schedule: str, key: str) -> None:
    problems = problems_of(f'prompt = "a mug"\n[schedule]\n{schedule}\n')
    assert any(key in problem.message for problem in problems), problems
    assert all(problem.line for problem in problems)


def test_a_job_that_says_a_size_is_not_given_another_by_its_lane() -> None:
    wide = lane_of('aspect = "16:9"\n')
    job = read('prompt = "a mug"\nwidth = 64\nheight = 64\n', lane=wide)
    assert (job.get("width"), job.get("height"), job.get("aspect")) == (64, 64, None)
    square = lane_of("width = 64\nheight = 64\n")
    job = read('prompt = "a mug"\naspect = "16:9"\n', lane=square)
    assert (job.get("width"), job.get("height"), job.get("aspect")) == (None, None, "16:9")


def test_a_shape_and_a_side_exclude_each_other() -> None:
    (problem,) = problems_of('prompt = "a mug"\naspect = "16:9"\nwidth = 64\n')
    assert "exclude each other" in problem.message


def test_a_lane_gives_only_what_the_kind_takes() -> None:
    lane = lane_of('mask = "mask.png"\ntrue_cfg = 3.0\nprompt = "from the lane"\n')
    job = read('preset = "noise-fill"\nimage = "a.png"\n', lane=lane)
    assert (job.pictures["mask"], job.keys.prompt) == (("mask.png",), "from the lane")
    assert job.get("true_cfg") is None
    assert "mask" not in read("", lane=lane).pictures


def test_a_lane_gives_a_picture_to_a_stage_that_works_on_it_though_the_kind_takes_none() -> None:
    stages = "".join(f'[[stages]]\nstage = "{stage}"\n' for stage in ('prepare"\ncontrol = "canny', "generate"))
    text = f'preset = "noise-control"\nprompt = "a mug"\n{stages}'
    assert read(text, lane=lane_of('image = "a.png"\n')).pictures == {"image": ("a.png",)}


def test_the_preset_of_a_lane_counts_unless_the_job_names_one() -> None:
    lane = lane_of('preset = "noise-redux"\n')
    assert name_of(read('image = "a.png"\n', lane=lane)) == "noise-redux"
    assert name_of(read('preset = "noise"\nprompt = "a mug"\n', lane=lane)) == "noise"


def test_a_wrong_value_from_a_lane_is_blamed_on_its_file() -> None:
    (problem,) = problems_of('prompt = "a mug"\n', lane=lane_of("steps = 0\n", "night/folder.toml"))
    assert problem.message.startswith("night/folder.toml: steps = 0")


@pytest.mark.parametrize("text", ["pictures_jobs = true\n", "hold = 1\n", "picture_jobs = 'yes'\n", "[schedule]\n"])
def test_a_lane_with_a_wrong_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        lane_of(text)
    assert caught.value.problems[0].line == 1


def test_a_preset_with_a_wrong_key_is_the_operators_business(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text('extends = "noise"\n[keys]\nmask = "m.png"\n')
    presets = Presets.of(tmp_path)
    with pytest.raises(SettingsError, match=r"odd.toml: keys.mask"):
        jobfile.check_preset(presets.get("odd"))
    with pytest.raises(Rejected) as caught:
        read('preset = "odd"\nprompt = "a mug"\n', presets=presets)
    assert caught.value.code == "bad-preset"


#: What may stand behind a key, of every type that TOML has.
ANYTHING = st.one_of(
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.datetimes(),
    st.dates(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


# The first value drawn builds Hypothesis' tables of characters, which takes a second on a busy machine.
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*advice.schema()["properties"], "self", "x"]), ANYTHING, max_size=6))
def test_whatever_the_keys_hold_a_job_is_read_or_refused(table: dict[str, Any]) -> None:
    try:
        jobfile.read(tomltext.Document(table=table, lines={}), SHIPPED, "noise")
        codes = set()
    except Rejected as error:
        codes = {problem.code for problem in error.problems}
    assert codes <= CODES


EXAMPLES = [
    'prompt = "a mug"\n',
    'preset = "noise-fill"\nimage = "a.png"\nmask = "b.png"\nprompt = "a star"\nguidance = 30\n',
    'prompt = "a mug"\naspect = "16:9"\ncount = 4\npriority = -5\ntitle = "spring"\n[meta]\norder = 7\n',
    'prompt = "a mug"\ntrue_cfg = 4.0\nnegative_prompt = "blur"\nseed = 4294967295\n',
    'prompt = "a mug"\n[schedule]\ncron = "0 2 * * *"\ntimezone = "Europe/Berlin"\n',
]
WRONG = [
    "steps = 0\n",
    'hieght = 3\nprompt = "x"\n',
    "seed = -1\n",
    'aspect = "wide"\n',
    "prompt = 1\n",
    "count = 1.5\n",
]


def test_the_schema_is_a_schema_and_says_what_the_reader_says() -> None:
    schema = advice.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator(schema)
    for text in EXAMPLES:
        read(text)
        assert not list(checker.iter_errors(tomllib.loads(text))), text
    for text in WRONG:
        problems_of(text)
        assert list(checker.iter_errors(tomllib.loads(text))), text


def test_every_key_of_the_schema_says_what_it_is() -> None:
    assert all(field.get("description") for field in advice.schema()["properties"].values())


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('prompt = "a mug"', "move it above [schedule]"),
        ('chron = "0 2 * * *"', "did you mean cron?"),
        ("zzz = 1", "docs/schedules.md"),
    ],
)
def test_a_key_that_has_no_business_in_a_schedule_is_told_where_it_belongs(line: str, hint: str) -> None:
    problem = problems_of(f'prompt = "a mug"\n[schedule]\nat = 2026-11-20T12:00:00\n{line}\n')[0]
    assert (problem.code, problem.line) == ("unknown-key", 4)
    assert hint in problem.hint


@pytest.mark.parametrize("key", ["schedule", "meta"])
def test_a_value_where_a_table_belongs_is_told_so(key: str) -> None:
    (problem,) = problems_of(f'prompt = "a mug"\n{key} = 3\n')
    assert problem.message == f"{key} = 3: a table is accepted: a line [{key}], and its keys below"


def test_a_wrong_lane_is_told_with_its_file_and_its_hint_once(tmp_path: Path) -> None:
    (tmp_path / "mugs").mkdir()
    (tmp_path / "mugs" / "folder.toml").write_text("steps = 2\npromt = 1\n")
    with pytest.raises(Rejected) as caught:
        lanes.read(tmp_path, "mugs")
    (problem,) = caught.value.problems
    assert problem.message == "mugs/folder.toml, line 2: unknown key promt"
    assert problem.hint == "did you mean prompt?"


@pytest.mark.parametrize("image", ["2", "[{}]", "9999-12-31T23:59:59-12:00"])
def test_a_picture_that_only_a_stage_takes_is_a_name_too(image: str) -> None:
    stages = '[[stages]]\nstage = "prepare"\ncontrol = "canny"\n[[stages]]\nstage = "generate"\n'
    text = f'preset = "noise-control"\nprompt = "a mug"\nimage = {image}\n{stages}'
    with pytest.raises(Rejected) as caught:
        jobfile.read(tomltext.parse(text.encode()), Presets.of(Path("/nonexistent")), "noise")
    assert [(problem.code, problem.line) for problem in caught.value.problems] == [("bad-value", 3)]
