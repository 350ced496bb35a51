"""Draw the curves of measured metrics as SVG, for pages that may be light or dark.

PYTHONPATH=tests python -m bench.curves FILE.jsonl FOLDER
"""

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final, Self

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 64, 52
#: Told apart with any kind of eyes, on white and on black (Okabe and Ito, 2008).
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_DASHES: Final = ("", "6 4", "2 3", "8 3 2 3")
#: GitHub shows an SVG as a picture, in which a media query still tells light from dark.
_STYLE: Final = """
text { font: 13px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.grid { stroke: #8b949e; stroke-opacity: .3 }
.axis { stroke: #8b949e }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""
#: Between two marks of an axis lie at least so many pixels.
_MARK_PX: Final = {"x": 90, "y": 50}


def main() -> int:
    lines = [json.loads(text) for text in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    # Of a metric that was measured several times the last one.
    for metric, curve in {line["metric"]: line["curve"] for line in lines if "curve" in line}.items():
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', metric.lower()).strip('-')}.svg"
        path.write_text(draw(curve), encoding="utf-8")
        print(path)
    return 0


def draw(curve: Mapping[str, Any]) -> str:
    """Return a curve of a metric's JSON line as SVG."""
    series: Mapping[str, Points] = curve["series"]
    points = [point for one in series.values() for point in one]
    across = Axis.over([x for x, _ in points], log=curve["log_x"], length=_WIDTH - _LEFT - _RIGHT)
    up = Axis.over([y for _, y in points], log=curve["log_y"], length=_HEIGHT - _TOP - _BOTTOM)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(curve['title'])}</title><style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="22">{escape(curve["title"])}</text>',
        *_frame(across, up, curve["x"], curve["y"]),
        *_lines(series, across, up),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Where a value lies along one side, in pixels from its beginning."""

    low: float
    high: float
    log: bool
    length: float

    @classmethod
    def over(cls, values: Sequence[float], *, log: bool, length: float) -> Self:
        """An axis that shows all of these; a linear one begins at nothing, so that heights can be compared."""
        low, high = min(values), max(values)
        if not log:
            return cls(low=0.0, high=high * 1.05 or 1.0, log=False, length=length)
        return cls(low=low, high=high if high > low else low * 10, log=True, length=length)

    def at(self, value: float) -> float:
        """Pixels from the beginning."""
        if self.log:
            return self.length * math.log(value / self.low) / math.log(self.high / self.low)
        return self.length * (value - self.low) / (self.high - self.low)

    def marks(self, apart_px: float) -> list[float]:
        """Round values, at least so far apart."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            decades = [10.0**power for power in range(first, last + 1)]
            return [mark for mark in decades if self.low * 0.999 <= mark <= self.high * 1.001]
        rough = self.high * apart_px / self.length
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
        return [step * number for number in range(int(self.high / step) + 1)]


def _frame(across: Axis, up: Axis, x: str, y: str) -> Iterator[str]:
    """The axes, a grid and what they count."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for mark in up.marks(_MARK_PX["y"]):
        height = bottom - up.at(mark)
        yield f'<line class="grid" x1="{_LEFT}" y1="{height:.1f}" x2="{right}" y2="{height:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{short(mark)}</text>'
    for mark in across.marks(_MARK_PX["x"]):
        left = _LEFT + across.at(mark)
        yield f'<line class="grid" x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" y2="{bottom}"/>'
        yield f'<text x="{left:.1f}" y="{bottom + 18}" text-anchor="middle">{short(mark)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    yield f'<line class="axis" x1="{_LEFT}" y1="{_TOP}" x2="{_LEFT}" y2="{bottom}"/>'
    yield f'<text x="{(_LEFT + right) / 2:.1f}" y="{bottom + 40}" text-anchor="middle">{escape(x)}</text>'
    yield f'<text x="{_LEFT - 8}" y="{_TOP - 12}" text-anchor="end">{escape(y)}</text>'


def _lines(series: Mapping[str, Points], across: Axis, up: Axis) -> Iterator[str]:
    """One line a series, with its name above: by colour and by dashes."""
    left = float(_LEFT)
    for index, (name, points) in enumerate(series.items()):
        colour, dashes = _COLOURS[index % len(_COLOURS)], _DASHES[index % len(_DASHES)]
        stroke = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"'
        places = [(_LEFT + across.at(x), _HEIGHT - _BOTTOM - up.at(y)) for x, y in sorted(points)]
        yield f'<polyline fill="none" {stroke} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
        if len(places) <= _DOTTED:
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places)
        yield f'<line x1="{left:.0f}" y1="42" x2="{left + 28:.0f}" y2="42" {stroke}/>'
        yield f'<text x="{left + 36:.0f}" y="46">{escape(name)}</text>'
        left += 36 + 8 * len(name) + 24


#: With more points than this a dot for each would hide the line.
_DOTTED: Final = 24


def short(value: float) -> str:
    """Return a number as it stands at an axis: 100k, 0.05."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
