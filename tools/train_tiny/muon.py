"""Muon: matrices are stepped along the nearest orthogonal one to their gradient, so every direction learns alike.

Source, with the numbers of the iteration: Keller Jordan, https://kellerjordan.github.io/posts/muon/; the scale is that
of https://arxiv.org/abs/2502.16982. `torch.optim.Muon` does the same in bfloat16, which takes most CPUs five times as
long as the rest of a step.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import torch

_ITERATIONS: Final = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315
_TINY: Final = 1e-7
#: Makes a step as long as AdamW's of the same rate is.
_LENGTH: Final = 0.2


class Muon(torch.optim.Optimizer):
    """For matrices inside a network; what leads in and out of it, and vectors, are AdamW's."""

    def __init__(
        self, matrices: Iterable[torch.Tensor], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 - no closures here
        """Step each matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for matrix in (one for one in group["params"] if one.grad is not None):
                state = self.state[matrix]
                mean = state.setdefault("mean", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                alike[matrix.shape].append((matrix, matrix.grad.lerp(mean, group["momentum"])))
            for shape, some in alike.items():
                wide = orthogonal(torch.stack([update for _, update in some]))
                length = group["lr"] * _LENGTH * max(shape) ** 0.5
                for (matrix, _), update in zip(some, wide, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=length)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return (n, a, b) matrices with singular values of about 1: 0.7 to 1.2."""
    is_high = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if is_high else matrices
    found = found / (found.norm(dim=(1, 2), keepdim=True) + _TINY)
    for _ in range(_ITERATIONS):
        square = found @ found.mT
        found = _A * found + (_B * square + _C * square @ square) @ found
    result: torch.Tensor = found.mT if is_high else found
    return result
