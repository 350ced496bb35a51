"""Pictures that are as hard to encode as photos: soft shapes of every size, and the noise of a sensor."""

import numpy as np
from PIL import Image

#: The noise of each channel, as in a well-lit photo, of 255.
_SENSOR = 1.5


def photo(seed: int, side: int = 1024) -> Image.Image:
    """A square RGB picture; the same seed makes the same pixels."""
    drawn = np.random.default_rng(seed)
    total = np.zeros((side, side, 3), dtype=np.float32)
    for octave in range(2, 9):
        cells = min(2**octave, side)
        small = drawn.random((cells, cells, 3), dtype=np.float32)
        layers = [
            Image.fromarray(small[:, :, channel]).resize((side, side), Image.Resampling.BICUBIC) for channel in range(3)
        ]
        total += np.stack([np.asarray(layer) for layer in layers], axis=2) / 2 ** (octave - 2)
    total = (total - total.min()) / (total.max() - total.min()) * 255
    total += drawn.normal(0, _SENSOR, total.shape).astype(np.float32)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))
