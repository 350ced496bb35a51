"""One course of training: its checkpoints, its curve, and going on where it stopped."""

import argparse
import json
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import torch
from muon import Muon

_T = TypeVar("_T")

#: A checkpoint is written so often.
_KEEP_S: Final = 120.0
#: Steps between two points of the curve.
_POINT: Final = 50
#: The first part of the steps, in which the rate rises, and the last one, in which it falls. In between it stays, so
#: that a course can be told more steps later, and goes on.
_WARM_UP: Final = 0.02
_FALL: Final = 0.3
#: Where all is trained that is handed to a course.
DEVICE: Final = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long a training is, unless it is told otherwise."""

    steps: int
    #: Scenes that are drawn beforehand.
    pool: int


def options(about: str, length: Length | Mapping[str, Length], **numbers: int) -> argparse.Namespace:
    """Read what a training is told: out, steps, pool, seed, and of several kinds which.

    Args:
        about: the module's docstring.
        length: of each kind, where there are several.
        numbers: what a training is told besides.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if isinstance(length, Length):
        _add(parser, length, numbers)
    else:
        kinds = parser.add_subparsers(dest="kind", required=True)
        for kind, its in length.items():
            _add(kinds.add_parser(kind), its, numbers)
    return parser.parse_args()


def _add(parser: argparse.ArgumentParser, length: Length, numbers: Mapping[str, int]) -> None:
    parser.add_argument("--out", type=Path, default=Path("build/tiny"))
    parser.add_argument("--steps", type=int, default=length.steps)
    parser.add_argument("--pool", type=int, default=length.pool, help="scenes that are drawn beforehand")
    parser.add_argument("--seed", type=int, default=1)
    for name, number in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=number)


class Course:
    """Trains modules for a number of steps. Stopped at any time, it goes on from its last checkpoint."""

    def __init__(
        self,
        folder: Path,
        modules: dict[str, torch.nn.Module],
        *,
        steps: int,
        rate: float,
        ema: float,
        seed: int,
        pool: int = 0,
        muon: float | None = None,
    ) -> None:
        """Take up a course, or begin one.

        Args:
            folder: for `checkpoint.pt`, `curve.jsonl`, and at the end `course.json`, which tells how it went.
            rate: the highest, reached after a warm-up; in the last part of the steps it falls.
            ema: how much of the average of the weights is kept at a step; what is used in the end is the average.
            pool: scenes that were drawn beforehand, for who wants to know.
            muon: the same as `rate`, of the matrices of transformers; None: they are stepped as all else is, by AdamW.
        """
        self._folder, self._modules, self._steps, self._ema = folder, modules, steps, ema
        for module in modules.values():
            module.to(DEVICE)
        named = [pair for module in modules.values() for pair in module.named_parameters() if pair[1].requires_grad]
        self._parameters = [one for _, one in named]
        matrices = [one for name, one in named if muon is not None and _is_inner(name, one)]
        others = [one for name, one in named if muon is None or not _is_inner(name, one)]
        #: Each with its highest rate. Fused: for so many small tensors the loop of Python would take a tenth of a step.
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True), rate)
        ]
        if muon is not None:
            self._optimizers.append((Muon(matrices, lr=muon), muon))
        self.averaged = deepcopy(modules)
        self._losses: list[float] = []
        self._commits: list[str] = []
        self.step, self.seconds, self.seed, self._pool = 0, 0.0, seed, pool
        folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            self._take_up()
        self._cut_curve()
        if (commit := _commit()) and commit not in self._commits:
            self._commits.append(commit)

    @classmethod
    def told(
        cls,
        told: argparse.Namespace,
        name: str,
        modules: dict[str, torch.nn.Module],
        *,
        rate: float,
        ema: float,
        muon: float | None = None,
        steps: int | None = None,
    ) -> Self:
        """Take up the course of this name, or begin it, as the command line says. Args: steps: instead of its steps."""
        folder, steps = told.out / "courses" / name, told.steps if steps is None else steps
        return cls(folder, modules, steps=steps, rate=rate, ema=ema, seed=told.seed, pool=told.pool, muon=muon)

    def run(self, loss_of: Callable[[int], torch.Tensor]) -> None:
        """Train to the end.

        Args:
            loss_of: the loss of a step, counted from 0; what it draws depends on the step alone.
        """
        began, kept = time.monotonic() - self.seconds, time.monotonic()
        while self.step < self._steps:
            loss = loss_of(self.step)
            for optimizer, rate in self._optimizers:
                optimizer.zero_grad(set_to_none=True)
                for group in optimizer.param_groups:
                    group["lr"] = rate * _shape(self.step / self._steps)
            loss.backward()  # type: ignore[no-untyped-call]  # torch says so itself
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            for optimizer, _ in self._optimizers:
                optimizer.step()
            self._average()
            self.step += 1
            self.seconds = time.monotonic() - began
            self._note(float(loss.detach()))
            if time.monotonic() - kept > _KEEP_S or self.step == self._steps:
                kept = time.monotonic()
                self.keep()
        self._tell()

    def chance(self, step: int) -> torch.Generator:
        """Return what a step draws from: the same at each run."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)

    def once(self, name: str, make: Callable[[], _T]) -> _T:
        """Return tensors that are made once, and kept in a file of that name and of how many scenes they are."""
        kept = self._folder / f"{name}.{self._pool}.pt"
        if not kept.exists():
            beside = kept.with_suffix(".tmp")
            torch.save(make(), beside)
            beside.replace(kept)
        return torch.load(kept, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]

    @property
    def _file(self) -> Path:
        return self._folder / "checkpoint.pt"

    def _average(self) -> None:
        # Soon after the beginning the average is to forget what was random.
        keep = min(self._ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, module in self._modules.items():
                for mean, now in zip(_tensors(self.averaged[name]), _tensors(module), strict=True):
                    if mean.dtype.is_floating_point:
                        mean.lerp_(now, 1 - keep)
                    else:
                        mean.copy_(now)

    def _note(self, loss: float) -> None:
        self._losses.append(loss)
        if self.step % _POINT:
            return
        point = {"step": self.step, "seconds": round(self.seconds, 1), "loss": sum(self._losses) / len(self._losses)}
        self._losses.clear()
        with (self._folder / "curve.jsonl").open("a", encoding="utf-8") as curve:
            curve.write(json.dumps(point) + "\n")
        if not self.step % (10 * _POINT):
            print(f"{self._folder.name}: step {self.step} of {self._steps}, loss {point['loss']:.4f}", flush=True)

    def _cut_curve(self) -> None:
        """Remove what was trained after the checkpoint, and is trained again."""
        curve = self._folder / "curve.jsonl"
        lines = curve.read_text(encoding="utf-8").splitlines(keepends=True) if curve.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        if kept != lines:
            curve.write_text("".join(kept), encoding="utf-8")

    def keep(self) -> None:
        """Write a checkpoint."""
        beside = self._file.with_suffix(".tmp")
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.seed,
            "commits": self._commits,
            "optimizers": [optimizer.state_dict() for optimizer, _ in self._optimizers],
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "averaged": {name: module.state_dict() for name, module in self.averaged.items()},
        }
        torch.save(state, beside)
        beside.replace(self._file)

    def _tell(self) -> None:
        told = {
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.seed,
            "commits": self._commits,
            "pool": self._pool,
            "machine": "GPU" if DEVICE.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}",
        }
        (self._folder / "course.json").write_text(json.dumps(told) + "\n", encoding="utf-8")

    def _take_up(self) -> None:
        state = torch.load(self._file, map_location=DEVICE, weights_only=True)
        if state["seed"] != self.seed:
            raise SystemExit(f"{self._folder} was begun with --seed {state['seed']}: what it drew is drawn from that")
        if state["step"] > self._steps:
            raise SystemExit(f"{self._folder} is at step {state['step']}: say more --steps, or remove it to begin anew")
        self.step, self.seconds = state["step"], state["seconds"]
        self._commits = state.get("commits", [])
        # Of weights that were packed only those are left.
        if "optimizers" in state:
            for (optimizer, _), kept in zip(self._optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
            self.averaged[name].load_state_dict(state["averaged"][name])
        print(f"{self._folder.name}: goes on at step {self.step}", flush=True)


def half_where_quick() -> torch.autocast:
    """Return how a loss is computed: in bfloat16 where that is quick; on a CPU without it, it takes 7 times as long."""
    abilities = torch.cpu.get_capabilities()
    is_quick = DEVICE.type == "cuda" or bool(abilities["avx512_bf16"] or abilities["amx_bf16"])
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=is_quick)


def compiled(module: Any) -> Any:
    """Return a module that computes the same with the same weights, in three quarters of the time.

    Each number of tokens is compiled by itself: there are at most two.
    """
    return torch.compile(module, dynamic=False) if shutil.which("c++") else module


def _commit() -> str:
    """Return the commit that this is, "" outside of a repository."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, check=False, text=True).stdout.strip()


def _is_inner(name: str, weight: torch.Tensor) -> bool:
    """Whether a weight is a matrix inside a transformer: not a table, nor what leads in or out, nor a modulation."""
    outer = ("embed", "shared", "relative", "norm")
    return weight.ndim == 2 and name != "proj_out.weight" and not any(part in name for part in outer)


def _tensors(module: torch.nn.Module) -> Iterable[torch.Tensor]:
    return module.state_dict().values()


def _shape(part: float) -> float:
    """Return the share of the highest rate at a part of the course, 0 to 1."""
    return min(1.0, part / _WARM_UP, 1 - math.sqrt(max(0.0, (part - (1 - _FALL)) / _FALL)))
