"""Reads enlarging models of the ESRGAN family, which are one file each, through spandrel, an extra.

spandrel knows from the weights alone which architecture they are of.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hotfolder.errors import SettingsError

_INSTALL: Final = "pip install 'hotfolder[upscale]'"
_COLOURS: Final = 3


def read(file: Path) -> Any:
    """Return the model as a torch.nn.Module that takes and gives (1, 3, h, w), RGB in [0, 1].

    Raises:
        SettingsError: `model-missing`: spandrel is not installed; `wrong-model`: it does not enlarge, or is of an
            architecture that is not known.
    """
    try:
        with without_torchvision():
            import spandrel
    except ImportError as error:
        found = f"{file.name} is a single file, which spandrel reads, and that is not installed ({error})"
        raise SettingsError("model-missing", found, _INSTALL) from error
    try:
        found = spandrel.ModelLoader("cpu").load_from_file(file)
    except spandrel.UnsupportedModelError as error:
        hint = "models of the ESRGAN family are: weights alone, as a .safetensors file"
        raise SettingsError("wrong-model", f"{file.name} is of no known architecture", hint) from error
    if (
        not isinstance(found, spandrel.ImageModelDescriptor)
        or found.scale < 1
        or (found.input_channels, found.output_channels) != (_COLOURS, _COLOURS)
    ):
        made = f"{file.name} is a model of {found.architecture.name} that does not enlarge pictures in colour"
        raise SettingsError("wrong-model", made, "set model.file to one that does")
    return _module(found)


def _module(found: Any) -> Any:
    """Wrap what spandrel found: it pads a picture to what the model can take, and crops the result."""
    import torch

    class Enlarging(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = found.model

        def forward(self, x: Any) -> Any:
            return found(x)

    return Enlarging().eval()


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Let spandrel be imported where torchvision is not: of its architectures two use it, for other things.

    Nobody else sees the stand-ins.
    """
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # RuntimeError: one made for another torch
        pass
    else:
        yield
        return
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "torchvision"}
    for name in names:
        sys.modules[name] = ModuleType(name)
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(sys.modules[names[-1]], name, None)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)
