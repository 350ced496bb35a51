"""TOML from strangers is parsed or refused, quickly, and each key is found at its line."""

import math
import tomllib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from limits import cost

from hotfolder import tomltext
from hotfolder.errors import CODES, Problem, Rejected
from hotfolder.tomltext import MAX_JOB_BYTES, MAX_OWN_BYTES, Document

#: Pieces of TOML, whole and broken: put together at random they get much further into a parser than random bytes do.
PIECES = [
    *"[]{}=.,#\"'\\ \t\n",
    '"""',
    "'''",
    "[[",
    "]]",
    "\r\n",
    "a",
    "a.b",
    "a = ",
    "= 1\n",
    "[a]\n",
    "[[a]]\n",
    "1",
    "1.5",
    "1e400",
    "nan",
    "-inf",
    "true",
    "0x7f",
    "1979-05-27T07:32:00Z",
    "25:61:61",
    '"x"',
    '"\\u0000"',
    '"\\ud800"',
    '"\\',
    "\u00e9",
    "\ufeff",
    "\0",
    "#! note\n",
    'type = "plan"\n',
    "9" * 70,
    "{a = 1}",
    "[1, 2]",
]


def problems_of(data: bytes) -> tuple[Problem, ...]:
    with pytest.raises(Rejected) as caught:
        tomltext.parse(data)
    return caught.value.problems


def parse_or_refuse(data: bytes) -> Document | Rejected:
    try:
        return tomltext.parse(data)
    except Rejected as error:
        return error


def check_any(data: bytes) -> None:
    found = parse_or_refuse(data)
    if isinstance(found, Rejected):
        assert all(problem.code in CODES for problem in found.problems)
        assert found.message.isprintable(), "a message can be shown in a terminal"
        tomltext.annotate(data, found.problems)
    else:
        tomltext.dump(found.table).decode()


@given(st.binary(max_size=400))
@example(b"\xff\xfea\0")
@example(b"\xef\xbb\xbfa = 1\n")
@example(b'"\\u001b[31m" = nan\n')
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    check_any(data)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@example('a = "\\')
@example('a = """\\"""')
@example("a = '''x''''''")
@example("[a\n]\n")
@example('a = """""""""')
def test_any_mixture_of_toml_is_parsed_or_refused(text: str) -> None:
    check_any(text.encode())


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_what_the_limits_let_through_means_what_tomllib_says(text: str) -> None:
    found = parse_or_refuse(text.encode())
    if isinstance(found, Document):
        assert found.table == tomllib.loads(tomltext.decode(text.encode()))


@pytest.mark.parametrize(
    "data",
    [
        b"a." * 20_000 + b"a = 1\n",
        b"[" + b"a." * 20_000 + b"a]\n",
        b"a = " + b"[" * 60_000,
        b"a = " + b"{a=" * 15_000,
        b"a = [" * 500 + b"]" * 500,
        b"a = " + b"9" * 5_000 + b"\n",
        b"a = 0." + b"9" * 60_000 + b"\n",
        b'a = "' + b'\\"' * 30_000,
        b'a = """' + b'\\"' * 30_000,
        b'a = "' + b"\\" * 60_000,
        b'a = """' + b'""x' * 20_000 + b'"""\n',
        b"a = '''" + b"''x" * 20_000 + b"'''\n",
        b'"' * 60_000,
        b"'" * 60_000,
        b'"\n' * 30_000,
        b'a"' * 30_000,
        b"\\" * 60_000,
        b"a = [" + b"{a.b.c.d = 1}," * 4_000 + b"]\n",
        b"a = [" + b"nan," * 15_000 + b"]\n",
        b"[[a]]\n" * 10_000,
        (b"[[" + b".".join([b"a"] * 16) + b"]]\n") * 1_500,
        b"".join(b"%x = 1\n" % number for number in range(6_000)),
        b"#" * 60_000,
        b"\r" * 60_000,
    ],
    ids=lambda data: data[:12].decode(),
)
def test_no_text_of_64_kb_takes_a_second(data: bytes) -> None:
    assert len(data) <= MAX_JOB_BYTES
    with cost() as found:
        parse_or_refuse(data)
    assert found.cpu_s < 1


def test_a_plan_of_8_mb_in_one_string_is_looked_at_without_8_million_steps() -> None:
    data = b'type = "plan"\na = "' + b"x" * 4_000_000 + b'\\" ' * 1_000_000 + b'"\n'
    assert MAX_JOB_BYTES < len(data) < MAX_OWN_BYTES
    assert len(tomltext.parse(data).table["a"]) == 6_000_000


@pytest.mark.parametrize(
    ("data", "code", "line"),
    [
        (b"a = 1\nb = \nc = 3\n", "bad-syntax", 2),
        (b'a = 1\nb = "x\n', "bad-syntax", 2),
        (b'a = 1\n\nb = """x\ny\n', "bad-syntax", 5),
        (b"a = 1\na = 2\n", "bad-syntax", 2),
        (b"\n\n" + b"a." * 17 + b"a = 1\n", "bad-syntax", 3),
        (b"\na = " + b"[" * 17 + b"]" * 17 + b"\n", "bad-syntax", 2),
        (b"\na = " + b"9" * 5_000 + b"\n", "bad-value", 2),
        (b"\na = nan\n", "bad-value", 2),
        (b"[t]\n\na = -inf\n", "bad-value", 3),
        (b"\na = [1, 9223372036854775808]\n", "bad-value", 2),
        (b'\na = "\\u001b[31m"\n', "bad-value", 2),
        (b"a = 1\nb = '\xff'\n", "bad-encoding", 2),
        ("a = 1\n".encode("utf-16"), "bad-encoding", None),
        ("a = 1\n".encode("utf-16-be"), "bad-syntax", 1),
        (b"a = 1\n" + b"#" * MAX_JOB_BYTES, "too-large", None),
        (b'type = "plan"\n' + b"#" * MAX_OWN_BYTES, "too-large", None),
    ],
)
def test_what_is_refused_is_refused_at_its_line(data: bytes, code: str, line: int | None) -> None:
    first = problems_of(data)[0]
    assert (first.code, first.line) == (code, line)


def test_every_value_that_cannot_be_used_is_told_at_once() -> None:
    problems = problems_of(b"a = nan\nb = 1\nc = inf\n[d]\ne = [nan]\n")
    assert [(problem.line, problem.message.partition(":")[0]) for problem in problems] == [
        (1, "a"),
        (3, "c"),
        (5, "d.e"),
    ]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    plain = b'a = 1\nb = """x\ny"""\n[t]\nc = 2\n'
    dressed = b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n")
    assert tomltext.parse(dressed) == tomltext.parse(plain)


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\n\nb = 2\n", ["b"], 3),
        ("a = 1\r\n\r\nb = 2\r\n", ["b"], 3),
        ("\ufeffa = 1\n", ["a"], 1),
        ('a = """\n[t]\nb = 1\n"""\nb = 2\n', ["b"], 5),
        ("a = '''\nb = 1\n'''\nb = 2\n", ["b"], 4),
        ('a = """x""""\nb = 2\n', ["b"], 2),
        ("a = [\n  1,  # ]\n  2,\n]\nb = 2\n", ["b"], 5),
        ("a = [\n  1,\n  2,\n]\nb = 2\n", ["a", 1], 1),
        ("a = {b = 1, c = 2}\n", ["a", "c"], 1),
        ("# a = 1\na = 1\n", ["a"], 2),
        ('a = "# no comment"\nb = 1\n', ["b"], 2),
        ("x = 1\n[t]\na = 1\n[u.v]\na = 2\n", ["u", "v", "a"], 5),
        ("[t] # comment\n\na = 1\n", ["t", "a"], 3),
        ("[t]\na.b.c = 1\n", ["t", "a", "b", "c"], 2),
        ("\"a b\" = 1\n'c.d' = 2\n", ["c.d"], 2),
        ('"a b" = 1\n"c\\u0041" = 2\n', ["cA"], 2),
        ('[ "t 1" . x ]\na = 1\n', ["t 1", "x", "a"], 2),
        ("[[s]]\na = 1\n[[s]]\na = 2\n", ["s", 0, "a"], 2),
        ("[[s]]\na = 1\n[[s]]\na = 2\n", ["s", 1, "a"], 4),
        ("[[s]]\na = 1\n[[s]]\nb = 2\n", ["s", 1, "a"], 3),
        ("[[s]]\na = 1\n[s.t]\nb = 2\n[[s]]\n[[s.u]]\na = 2\n", ["s"], 1),
        ("a = 1979-05-27 07:32:00\nb = 1.5\nc = 2\n", ["c"], 3),
        ("a = 1\n", ["b"], None),
        ("[t]\na = 1\n", ["t", "b", "c"], 1),
        ("a = 1\nb.c.d = 2\n", ["b"], 2),
        ("a = 1\n[b.c]\nd = 2\n", ["b"], 2),
        ("a = 1\n[b]", ["b"], 2),
    ],
)
def test_a_key_is_found_at_its_line(text: str, path: list[str | int], line: int | None) -> None:
    assert tomltext.parse(text.encode()).line_of(path) == line


def test_notes_are_dropped_on_reading_and_lines_count_as_before() -> None:
    document = tomltext.parse(b"#! wrong\na = 1\n#! wrong too\nb = 2\n#! mend it\n")
    assert (document.table, document.line_of(["b"])) == ({"a": 1, "b": 2}, 4)


def test_a_note_stands_above_the_line_it_is_about() -> None:
    problems = [
        Problem(code="bad-value", message="b is\nwrong", hint="less", line=2),
        Problem(code="missing-key", message="something is missing"),
        Problem(code="bad-value", message="far away", line=99),
    ]
    told = tomltext.annotate(b"a = 1\r\nb = 2\r\n", problems).decode().split("\n")
    assert told == ["#! something is missing", "a = 1", "#! b is wrong -- less", "b = 2", "", "#! far away"]


def test_notes_of_a_text_that_was_refused_before_are_replaced() -> None:
    once = tomltext.annotate(b"a = 1\n", [Problem(code="bad-value", message="first", line=1)])
    twice = tomltext.annotate(once, [Problem(code="bad-value", message="second", line=2)])
    assert twice == b"#! second\na = 1\n"


@given(st.text(max_size=200))
def test_an_annotated_text_reads_as_before(text: str) -> None:
    data = text.encode()
    found = parse_or_refuse(data)
    noted = parse_or_refuse(
        tomltext.annotate(data, [Problem(code="bad-value", message="x", hint="y\r\nz = 3", line=1)])
    )
    if isinstance(found, Document):
        assert isinstance(noted, Document)
        assert noted.table == found.table


@pytest.mark.parametrize("data", [b"\xff\xfea\0", b"a = '\xff'\n", b"a = 1\0\n"])
def test_what_cannot_be_annotated_comes_back_as_it_is(data: bytes) -> None:
    assert tomltext.annotate(data, [Problem(code="bad-encoding", message="no UTF-8")]) == data


#: What a table of ours may hold; None and nan may not.
SCALARS = (
    st.text(max_size=20)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.none()).map(lambda moment: moment.replace(microsecond=0))
)
KEYS = st.text(max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=10
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), VALUES, max_size=5))
@example({"a": [{"b": {"c": 1}}]})
@example({"a": [{"b": 1}, 3]})
@example({"a": "x\r\ny\n#! z"})
@example({"a": ["\x85", "b"]})
def test_what_is_dumped_reads_back_the_same(table: dict[str, Any]) -> None:
    data = tomltext.dump(table)
    assert tomllib.loads(data.decode()) == table
    assert not any(line.startswith(tomltext.NOTE) for line in data.decode().split("\n"))


@pytest.mark.parametrize(
    "data",
    [b"a = " + b"[" * 5000, b"a = " + b"{a = " * 5000, b"a = " + b"9" * 5000, b"a = '\xff'", b"a = "],
    ids=lambda data: repr(data[:8]),
)
def test_what_the_house_wrote_is_read_or_is_a_value_error_whatever_became_of_it(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        tomltext.load(data)
    assert tomltext.load(b"\xef\xbb\xbfa = 1\r\n") == {"a": 1}


def test_rows_are_dumped_one_below_the_other_for_tools_that_go_by_lines() -> None:
    data = tomltext.dump({"outputs": [{"file": "a.png"}, {"file": "b.png"}], "state": "completed"})
    assert data == b'state = "completed"\n\n[[outputs]]\nfile = "a.png"\n\n[[outputs]]\nfile = "b.png"\n'


def test_a_plan_may_be_larger_than_a_job_file_and_is_known_by_its_type() -> None:
    text = b'title = "' + b"x" * MAX_JOB_BYTES + b'"\n'
    assert problems_of(text)[0].code == "too-large"
    assert tomltext.parse(b'schema = 1\ntype = "plan"\n' + text).table["type"] == "plan"
    assert tomltext.parse(b'schema = 1\r\ntype = "picture"\r\n' + text).table["type"] == "picture"


def test_numbers_at_the_ends_of_their_range_are_accepted() -> None:
    table = tomltext.parse(b"a = 9223372036854775807\nb = -9223372036854775807\nc = 1.7976931348623157e308\n").table
    assert math.isfinite(table["c"])
    assert table["a"] == 2**63 - 1


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('prompt = "a mug\nsteps = 2\n', "not TOML", "a closing quote is missing"),
        ('prompt = """a mug', "not TOML", "a closing quote is missing"),
        ("prompt = \u201ca mug\u201d\n", "not TOML", "straight quotes"),
        ('prompt = "a mug\u201d\n', "not TOML", "straight quotes"),
        ("steps = 2\nsteps = 3", "steps stands twice", "leave one of them out"),
        ("[meta]\na = 1\n[meta]\nb = 2\n", "meta stands twice", "leave one of them out"),
        ("a = 1\n[a.b]\n", "a.b stands twice", "leave one of them out"),
        ("prompt = a mug\n", "not TOML", "strings need quotes"),
    ],
)
def test_a_mistake_of_syntax_is_told_with_what_to_do(text: str, message: str, hint: str) -> None:
    with pytest.raises(Rejected) as caught:
        tomltext.parse(text.encode())
    problem = caught.value.problems[0]
    assert message in problem.message
    assert hint in problem.hint
