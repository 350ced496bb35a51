"""What a helper is: which model it needs, and how that is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from hotfolder.engine import Answer, Question

#: 8 bits.
WHITE: Final = 255


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A helper model in memory, and what goes with it."""

    #: A torch.nn.Module on its device.
    model: Any
    #: Of transformers, made for Pillow: torchvision is not needed. None for a model of one file.
    processor: Any
    tokenizer: Any = None

    def inputs(self, **named: Any) -> dict[str, Any]:
        """Return tensors where the model is; floats as its weights are."""
        weights = next(self.model.parameters())
        return {
            name: value.to(weights.device, weights.dtype if value.is_floating_point() else None)
            for name, value in named.items()
        }


@dataclass(frozen=True, kw_only=True)
class Helper:
    """One helper. The engine does the rest, the same for all: load, and find memory."""

    #: Classes of transformers that the config.json of a checkpoint may name -> the class of the image processor.
    models: Mapping[str, str]
    #: The class of its tokenizer; None where it reads no text.
    tokenizer: str | None = None
    #: Reads a checkpoint that is one file; None where there are none such.
    read_file: Callable[[Path], Any] | None = None
    #: Called without gradients. The tick tells the part that is done, where there are parts: step, steps.
    run: Callable[[Ready, Question, Callable[[int, int], None]], Answer]


def only(question: Question) -> Image.Image:
    """Return the one picture that is asked about, as models take it."""
    if len(question.pictures) != 1:
        raise ValueError(f"{question.kind} is asked about one picture at a time, not {len(question.pictures)}")
    return question.pictures[0].convert("RGB")
