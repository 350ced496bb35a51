"""Which pixels hang together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def label(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the connected regions of a mask, corners touching.

    Args:
        mask: (h, w).
    Returns: (h, w), 0 where the mask is not set; numbers from 1, in the order in which rows are read.
    """
    index = np.full(mask.shape, -1, dtype=np.int32)
    count = int(np.count_nonzero(mask))
    index[mask] = np.arange(count, dtype=np.int32)
    roots = _roots(count, _neighbours(index))
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = np.unique(roots, return_inverse=True)[1] + 1
    return labels


def _neighbours(index: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return (2, n): each two set pixels that touch."""
    touching = (
        (index[:, :-1], index[:, 1:]),
        (index[:-1], index[1:]),
        (index[:-1, :-1], index[1:, 1:]),
        (index[:-1, 1:], index[1:, :-1]),
    )
    found = []
    for one, other in touching:
        both = (one >= 0) & (other >= 0)
        found.append(np.stack([one[both], other[both]]))
    return np.concatenate(found, axis=1)


def _roots(count: int, pairs: NDArray[np.int32]) -> NDArray[Any]:
    """Return of each pixel the first of its region: hook the higher root to the lower one, shorten all ways, again."""
    root = np.arange(count, dtype=np.int32)
    while pairs.size:
        np.minimum.at(root, pairs.max(axis=0), pairs.min(axis=0))
        while (further := root[root]).tobytes() != root.tobytes():
            root = further
        pairs = root[pairs]
        pairs = pairs[:, pairs[0] != pairs[1]]
    return root
