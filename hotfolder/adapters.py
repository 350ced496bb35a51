"""LoRAs beside the weights of a pipeline: loaded into those of its parts that they change, switched on, and off.

A part may be shared: two models may have the same text encoder, two presets the same transformer. So each part is asked
what is in it, whoever loaded that, and nothing of the weights themselves is ever changed.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

#: Parts of a pipeline that a LoRA may change.
PARTS: Final = ("transformer", "text_encoder")
#: Kept in one part.
_KEPT: Final = 8
#: Keys of files that overwrite weights of the model itself, which could not be switched off.
_OVERWRITING: Final = (".norm_q.", ".norm_k.", ".norm_added_q.", ".norm_added_k.")


def is_loaded(pipe: Any, name: str, parts: frozenset[str]) -> bool:
    """Whether a LoRA is in all parts that it changes."""
    return all(name in _known(getattr(pipe, part)) for part in parts)


def load(pipe: Any, name: str, folder: Path, file: str) -> frozenset[str]:
    """Load a LoRA into the parts that it changes, where it is not in them already; return which these are.

    Args:
        pipe: a FLUX pipeline.
        name: what it is called in them; without a dot.

    Raises:
        ValueError, RuntimeError, KeyError, OSError: it is broken, or for another model. Nothing of it stays behind.
    """
    state, alphas, metadata = pipe.lora_state_dict(
        str(folder),
        weight_name=file,
        use_safetensors=True,  # other formats can run code when they are read
        local_files_only=True,
        return_alphas=True,
        return_lora_metadata=True,
    )
    if any(mark in key for key in state for mark in _OVERWRITING):
        raise ValueError("it overwrites weights of the model, and could not be switched off again")
    parts = frozenset(part for part in PARTS if any(key.startswith(f"{part}.") and "lora" in key for key in state))
    if not parts:
        raise ValueError("it changes no part of this model")
    common: dict[str, Any] = {"adapter_name": name, "metadata": metadata, "_pipeline": pipe}
    try:
        with _quiet():
            if "transformer" in parts and name not in _known(pipe.transformer):
                pipe.load_lora_into_transformer(dict(state), alphas, pipe.transformer, **common)
            if "text_encoder" in parts and name not in _known(pipe.text_encoder):
                pipe.load_lora_into_text_encoder(
                    dict(state), alphas, pipe.text_encoder, prefix="text_encoder", **common
                )
    except BaseException:
        for module in _changed(pipe):
            if name in _known(module):
                _remove(module, name)
        raise
    return parts


def switch(pipe: Any, weights: Mapping[str, float]) -> None:
    """Switch on the LoRAs of these names, each with its weight, and all others off. They must be loaded."""
    from diffusers.utils import set_adapter_layers, set_weights_and_activate_adapters

    for module in _changed(pipe):
        known = _known(module)
        here = [name for name in weights if name in known]
        for name in here:  # those used last stand last
            known[name] = known.pop(name)
        for name in list(known)[: -max(_KEPT, len(here))]:
            _remove(module, name)
        if here:
            set_adapter_layers(module, enabled=True)
            set_weights_and_activate_adapters(module, here, [weights[name] for name in here])
        elif known:
            set_adapter_layers(module, enabled=False)


def _remove(module: Any, name: str) -> None:
    from diffusers.utils import delete_adapter_layers

    with _quiet():
        delete_adapter_layers(module, name)
    _known(module).pop(name, None)  # one that was loaded by half is not marked as loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nobody be warned that there are several, and that one that is on is removed: both are meant."""
    with warnings.catch_warnings():
        for text in ("Already found a `peft_config`", "Adapter .* was active which is now deleted"):
            warnings.filterwarnings("ignore", message=text)
        yield


def _changed(pipe: Any) -> Iterator[Any]:
    return (module for part in PARTS if _known(module := getattr(pipe, part)))


def _known(module: Any) -> dict[str, Any]:
    """Return what is loaded into a part, by name, the longest unused first."""
    known: dict[str, Any] = getattr(module, "peft_config", {})
    return known
