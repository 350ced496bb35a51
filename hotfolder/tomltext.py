"""TOML from strangers: limits before parsing, and the line at which each key stands."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any, Final

import tomli_w

from hotfolder.errors import Problem, Rejected
from hotfolder.names import shown

#: Bytes of a job file.
MAX_JOB_BYTES: Final = 64 * 1024
#: Bytes of a plan or a sidecar, which this program wrote.
MAX_OWN_BYTES: Final = 8 * 1024 * 1024
#: tomllib takes seconds for a dotted key of thousands of parts, and recurses for each level of nesting.
_MAX_KEY_PARTS: Final = 16
_MAX_DEPTH: Final = 16
_MAX_WORD: Final = 64
#: More of the same tells nobody anything.
_MAX_UNWANTED: Final = 100
#: Lines that we wrote into a rejected job file; dropped on reading.
NOTE: Final = "#! "

# The patterns of this module are compiled, and kept, by `re` when first used: most commands use none or one of them.

#: What word processors and phones make of quotes.
_CURLY: Final = "[\u2018-\u201f\u00ab\u00bb]"

Path = tuple[str, ...]

_LEXEME: Final = r"""(?xs)
      (?P<long>\"\"\"(?:[^"\\]++|\\.|"{1,2}(?!"))*+\"{3,5}|'''(?:[^']++|'{1,2}(?!'))*+'{3,5})
    | (?P<string>"(?!"")(?:[^"\\\n]++|\\[^\n])*+"|'(?!'')[^'\n]*+')
    | (?P<open>["'])
    | (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<mark>[\[\]{}=.,])
    | (?P<word>[^\s"'\#\[\]{}=.,]+)
    | (?P<space>[^\S\n]+)
    | (?P<other>.)
    """


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed TOML text."""

    table: Mapping[str, Any]
    #: Key path -> line, counted from 1.
    lines: Mapping[Path, int]

    @property
    def is_own(self) -> bool:
        """Whether this is a plan or a sidecar; a job file has no type."""
        return isinstance(self.table.get("type"), str) and self.table["type"] in {"plan", "picture"}

    def line_of(self, path: Iterable[str | int]) -> int | None:
        """Return the line of a key, or of the nearest table or list around it."""
        keys = tuple(str(part) for part in path)
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.lines:
                return self.lines[keys[:end]]
        return None


def parse(data: bytes) -> Document:
    """Parse the bytes of a dropped file.

    Raises:
        Rejected: too large, no UTF-8, no TOML, or holds what no job needs (nan, control characters, deep nesting).
    """
    text = decode(data)
    lines = _look(text)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(at.group(1)) if at else text.count("\n") + 1
        raise Rejected([_syntax_problem(str(error)[:200], text.split("\n")[line - 1], line)]) from error
    except (RecursionError, ValueError) as error:
        raise Rejected([_problem("bad-syntax", f"not TOML: {str(error)[:200]}")]) from error
    document = Document(table=table, lines=lines)
    problems = [
        _problem("bad-value", f"{shown('.'.join(path))[:_MAX_WORD]}: {what}", "", document.line_of(path))
        for path, what in islice(_unwanted(table, ()), _MAX_UNWANTED)
    ]
    if problems:
        raise Rejected(problems)
    return document


def load(data: bytes) -> dict[str, Any]:
    """Read TOML of the house, which this program or its operator wrote, without the limits for strangers.

    Raises:
        ValueError: no UTF-8, no TOML, or nested more deeply than anything that was written here.
    """
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def decode(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark; our own `#! ` lines are blanked, so that line numbers hold.

    Raises:
        Rejected: too large, or another encoding.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Rejected([_problem("bad-encoding", "the file is UTF-16", "save it as UTF-8")])
    limit = MAX_OWN_BYTES if is_own(data) else MAX_JOB_BYTES
    if len(data) > limit:
        raise Rejected([_problem("too-large", f"the file has {len(data)} bytes; at most {limit} are accepted")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Rejected(
            [_problem("bad-encoding", f"byte {error.start} is no UTF-8", "save it as UTF-8", line)]
        ) from error
    text = text.replace("\r\n", "\n")
    return "\n".join("" if line.startswith(NOTE) else line for line in text.split("\n"))


def is_own(data: bytes) -> bool:
    """Whether this may be as large as a plan or a sidecar: `type` stands among the first lines that we wrote."""
    return re.search(rb'^type = "(plan|picture)"\r?$', data[:512], re.MULTILINE) is not None


def annotate(data: bytes, problems: Iterable[Problem]) -> bytes:
    """Return the text with each problem as a `#! ` comment above its line.

    What cannot be annotated comes back as it is.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data
    if "\0" in text or len(data) > MAX_OWN_BYTES:
        return data
    notes: dict[int, list[str]] = {}
    for problem in problems:
        words = " ".join(problem.message.split()) + (f" -- {' '.join(problem.hint.split())}" if problem.hint else "")
        notes.setdefault(problem.line or 1, []).append(f"{NOTE}{words}")
    result: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        result += notes.pop(number, [])
        if not line.startswith(NOTE):
            result.append(line)
    for rest in notes.values():
        result += rest
    return "\n".join(result).encode()


def dump(table: Mapping[str, Any]) -> bytes:
    """Return `table` as TOML, as people and line-wise tools read it: each row of a list of tables is a `[[block]]`.

    Strings stay on one line: between triple quotes a line could be taken for one of our notes, and carriage returns
    would get lost.
    """
    rows = {key: value for key, value in table.items() if isinstance(value, (list, tuple)) and _are_rows(value)}
    parts = [tomli_w.dumps({key: value for key, value in table.items() if key not in rows})]
    parts += [f"\n[[{key}]]\n{tomli_w.dumps(row)}" for key, entries in rows.items() for row in entries]
    text = re.sub(_INNER_LIST, _inner_on_one_line, "".join(parts))
    return re.sub(_LIST, _on_one_line, text).encode()


#: A list of plain values as tomli_w writes it: each on a line of its own.
_LIST: Final = r"(?m)= \[\n((?:    [^\n\[\]{}]+,\n)+)\]$"
#: The same within a list.
_INNER_LIST: Final = r"(?m)^    \[\n((?:        [^\n\[\]{}]+,\n)+)    \],$"
_LINE: Final = 100


def _inner_on_one_line(found: re.Match[str]) -> str:
    line = f"    [{', '.join(_values(found[1]))}],"
    return line if len(line) <= _LINE else found[0]


def _on_one_line(found: re.Match[str]) -> str:
    """A short list is read more easily on one line; strings hold no line ends here."""
    line = f"= [{', '.join(_values(found[1]))}]"
    return line if len(line) <= _LINE else found[0]


def _values(lines: str) -> list[str]:
    """Return the values of a list; `splitlines` would also part a string at what Unicode calls the end of a line."""
    return [line.lstrip(" ").removesuffix(",") for line in lines.removesuffix("\n").split("\n")]


def _are_rows(entries: Sequence[object]) -> bool:
    """Whether these are tables without tables in them, which can be written one below the other."""
    return bool(entries) and all(
        isinstance(row, dict) and not any(isinstance(value, dict) for value in row.values()) for row in entries
    )


def _look(text: str) -> dict[Path, int]:  # noqa: PLR0915 - one pass over the tokens, with what it knows at hand
    """Find the line of every key in one pass, and refuse what would make the parser slow or deep.

    Only statements are looked at: a key in an inline table has the line of its statement.
    """
    lines: dict[Path, int] = {}
    table: Path = ()
    key: list[str] = []
    number, depth, parts = 1, 0, 0
    at_start, in_header, in_value = True, False, False
    #: How often the header of a list of tables came.
    rows: Counter[Path] = Counter()
    doubled = False
    for token in re.finditer(_LEXEME, f"{text}\n"):  # what the last line says counts too
        kind, found = token.lastgroup, token.group()
        if kind == "open":
            break  # never closed: the parser says so, with the place
        if kind == "long":
            number += found.count("\n")
            at_start = False
            continue
        if kind == "newline":
            if in_header:
                table = tuple(key)
                _note(lines, table, number)
                if doubled:
                    rows[table] += 1
                    table = (*table, str(rows[table] - 1))
                    lines[table] = number
            if depth == 0 or in_header:
                at_start, in_header, in_value, key, depth = True, False, False, [], 0
            number, parts = number + 1, 0
            continue
        if kind in {"space", "comment"}:
            continue
        if kind == "word" and in_value and len(found) > _MAX_WORD:
            raise Rejected(
                [
                    _problem(
                        "bad-value",
                        f"a number or bare word of {len(found)} characters",
                        "numbers have at most 19 digits",
                        number,
                    )
                ]
            )
        if found == ".":
            parts += 1
            if parts > _MAX_KEY_PARTS:
                raise Rejected([_problem("bad-syntax", f"a key of more than {_MAX_KEY_PARTS} parts", "", number)])
        elif kind == "mark" and found != ".":
            parts = 0
        if at_start and found == "[":
            at_start, in_header, doubled = False, True, False
        elif in_header:
            doubled = doubled or (found == "[" and not key)
            if kind in {"word", "string"}:
                key.append(_bare(found))
            depth = 0
        elif not in_value and found == "=":
            _note(lines, (*table, *key), number)
            in_value = True
        elif not in_value and kind in {"word", "string"}:
            key.append(_bare(found))
        elif found in {"[", "{"} and kind == "mark":
            depth += 1
            if depth > _MAX_DEPTH:
                raise Rejected(
                    [_problem("bad-syntax", f"lists or tables nested more than {_MAX_DEPTH} deep", "", number)]
                )
        elif found in {"]", "}"} and kind == "mark":
            depth = max(0, depth - 1)
        at_start = False
    return lines


def _note(lines: dict[Path, int], path: Path, number: int) -> None:
    """Note where a key stands, and the tables above it where they are said nowhere else."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            break
        lines[path[:end]] = number


def _bare(found: str) -> str:
    """Return a part of a key as the parser will name it."""
    if found[0] == '"' and "\\" in found:
        with suppress(tomllib.TOMLDecodeError):  # where it is none, the parser will say so
            return str(tomllib.loads(f"key = {found}")["key"])
    return found[1:-1] if found[0] in "\"'" else found


def _unwanted(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _unwanted(inner, (*path, key))
        case list():
            for inner in value:
                yield from _unwanted(inner, path)
        case float() if not isfinite(value):
            yield path, f"{value} is no number that can be used"
        case int() if not -(2**63) <= value < 2**63:
            yield path, "the number is too large"
        case str() if any(c < " " and c not in "\n\t\r" for c in value):
            yield path, "the text holds a control character"
        case _:
            pass


def _syntax_problem(found: str, text: str, line: int) -> Problem:
    """Say what the parser found in `text`, a line, in the words of whoever wrote it."""
    key = text.strip(" \t[]") if text.lstrip().startswith("[") else text.partition("=")[0].strip()
    if key and found.startswith(("Cannot overwrite", "Cannot declare")):
        return _problem("bad-syntax", f"{shown(key)[:_MAX_WORD]} stands twice", "leave one of them out", line)
    hint = "strings need quotes, tables [brackets]"
    if re.search(_CURLY, text):
        hint = "write straight quotes, \" or ', instead of curly ones"
    elif found.startswith(("Illegal character '\\n'", "Unterminated string")):
        hint = 'a closing quote is missing; text of several lines stands between """'
    return _problem("bad-syntax", f"not TOML: {found}", hint, line)


def _problem(code: str, message: str, hint: str = "", line: int | None = None) -> Problem:
    return Problem(code=code, message=message, hint=hint, line=line)
