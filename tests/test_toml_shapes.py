"""TOML of every shape is read as it is meant, and what is no TOML is refused at its line."""

import pytest
from toml_shapes import INVALID, VALID

from hotfolder import tomltext
from hotfolder.errors import Rejected


@pytest.mark.parametrize("name", VALID)
def test_toml_of_any_shape_is_read_as_it_is_meant(name: str) -> None:
    text, meant = VALID[name]
    document = tomltext.parse(text.encode())
    assert document.table == meant
    assert {key for key in document.table if document.line_of([key]) is None} == set(), "each key has its line"


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_toml_is_refused_at_its_line(name: str) -> None:
    text = INVALID[name]
    data = b"# first\n" + (text if isinstance(text, bytes) else text.encode()) + b"\n# last\n"
    with pytest.raises(Rejected) as caught:
        tomltext.parse(data)
    for problem in caught.value.problems:
        assert problem.code in {"bad-syntax", "bad-encoding", "bad-value"}
        assert problem.message.isprintable()
        assert problem.line is not None
        assert 2 <= problem.line <= data.count(b"\n") + 1
        if data.count(b"\n") == 3 and "close" not in name:
            assert problem.line == 2
