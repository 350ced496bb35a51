"""What a user may write for each stage of a pipeline, and what the stage needs, gives and where it runs.

To add a stage: one class here, one file in `stages/`, one line in each dict.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from hotfolder.loras import Loras
from hotfolder.names import make_safe

#: What is handed from stage to stage: a stage needs some of it, gives some, and makes some of it void.
Thing = Literal["picture", "mask", "control", "boxes", "variants"]
#: On the GPU thread, on the threads beside it, or in the hands of a person.
Lane = Literal["gpu", "cpu", "person"]

#: "clip", "depth" and so on are the names of presets, as they are shipped.
Name = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(max_length=20_000)]
Aspect = Annotated[str, Field(pattern=r"^[1-9]\d{0,2}:[1-9]\d{0,2}$")]
Side = Annotated[int, Field(ge=1, le=16_384)]


def _known_colour(text: str) -> str:
    """Refuse a name that no colour has, before a picture is made for it."""
    from PIL import ImageColor

    if text.startswith("#") or text == "transparent" or text in ImageColor.colormap:
        return text
    raise ValueError('a colour is #rrggbb, #rrggbbaa or a name that CSS knows, such as "teal"')


#: "#rrggbb", "#rrggbbaa" or a name that CSS knows.
Colour = Annotated[
    str, Field(pattern=r"^(#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?|[a-z]{3,20})$"), AfterValidator(_known_colour)
]
Gravity = Literal[
    "center", "top", "bottom", "left", "right", "top-left", "top-right", "bottom-left", "bottom-right", "subject"
]
Anchor = Literal["center", "top", "bottom", "left", "right", "top-left", "top-right", "bottom-left", "bottom-right"]

#: Keys that belong to a preset: a stage with another preset than the job's does not take the job's.
OF_THE_PRESET: Final = frozenset(
    {"steps", "guidance", "true_cfg", "negative_prompt", "strength", "image_strength", "loras"}
)
PICTURE: Final = frozenset[Thing]({"picture"})
NOTHING: Final = frozenset[Thing]()


class StageKeys(BaseModel):
    """The keys of one stage; its properties say how it fits between the others."""

    # Built when the first one is read: most commands need none of them, or a few.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    #: Whether it makes pictures with a preset of a kind such as text2img: it then takes a job's own keys too.
    generates: ClassVar[bool] = False
    #: Whether it looks at all candidates of an item together.
    whole_item: ClassVar[bool] = False
    #: Keys that name a file of `presets/assets/` or the inbox.
    assets: ClassVar[tuple[str, ...]] = ()

    @property
    def lane(self) -> Lane:
        """Where it runs."""
        return "cpu"

    @property
    def needs(self) -> frozenset[Thing]:
        """What an earlier stage, or the job itself, must have given."""
        return PICTURE

    @property
    def gives(self) -> frozenset[Thing]:
        """What it gives on."""
        return PICTURE

    @property
    def voids(self) -> frozenset[Thing]:
        """What is not true any more after it: boxes of a picture that was cropped, say."""
        return NOTHING

    @property
    def takes_variants(self) -> bool:
        """Whether it can follow `variants`: it then does the same to each."""
        return False

    @property
    def helper(self) -> str | None:
        """The preset of the helper model that it uses, if any: detect, depth, pose, clip or upscale."""
        return None


class _PictureWork(StageKeys):
    """Pillow and numpy; the same to each variant."""

    @property
    def takes_variants(self) -> bool:
        return True


class _Reshaping(_PictureWork):
    """Moves pixels about: what was found at a place is no more there."""

    @property
    def voids(self) -> frozenset[Thing]:
        return frozenset({"boxes", "mask", "control"})


class Prepare(StageKeys):
    """Brings the job's pictures into shape, and makes a control map of `image`."""

    control: Literal["canny", "depth", "pose"] | None = None
    """The map to make, for a preset of the kind control."""
    preset: Name | None = None
    """The helper model of depth and pose; default: the preset "depth" or "pose"."""
    low: Annotated[int, Field(ge=0, le=255)] = 100
    """canny: an edge weaker than this is none."""
    high: Annotated[int, Field(ge=0, le=255)] = 200
    """canny: an edge stronger than this always is one."""

    @property
    def lane(self) -> Lane:
        return "gpu" if self.helper else "cpu"

    @property
    def needs(self) -> frozenset[Thing]:
        return PICTURE if self.control else NOTHING

    @property
    def gives(self) -> frozenset[Thing]:
        return frozenset({"control"}) if self.control else NOTHING

    @property
    def helper(self) -> str | None:
        return (self.preset or self.control) if self.control in {"depth", "pose"} else None


class Generating(StageKeys):
    """What every stage takes that makes pictures with a model."""

    generates: ClassVar[bool] = True

    preset: Name | None = None
    """Default: the job's own."""
    prompt: Text | None = None
    """Default: the job's own."""
    negative_prompt: Text | None = None
    """What the picture should not show; needs true_cfg above 1."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Of the first candidate; default: the job's own."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Denoising steps."""
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """The embedded (distilled) guidance."""
    true_cfg: Annotated[float, Field(ge=1, le=100)] | None = None
    """Classifier-free guidance; above 1 each step takes a second pass."""
    loras: Loras | None = None
    """LoRAs of the preset to switch on: "night, sketch:0.5"; default: the job's own."""

    @property
    def lane(self) -> Lane:
        return "gpu"


class Generate(Generating):
    """Makes a picture of any kind, by preset: from the prompt, from a source, or from what came in."""

    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Pictures to make, of each that came in; default: the job's count in the first stage of this name, then 1."""
    add: bool = False
    """Whether to keep what came in beside what is made."""
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    """text2img: how far to move from the picture that came in."""
    image_strength: Annotated[float, Field(gt=0, le=2)] | None = None
    """redux: how strongly the picture that came in is followed."""
    width: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Pixels; rounded to a multiple of 16."""
    height: Annotated[int, Field(ge=16, le=8192)] | None = None
    """Pixels; rounded to a multiple of 16."""
    aspect: Aspect | None = None
    """Shape such as "16:9" instead of width and height."""

    @property
    def needs(self) -> frozenset[Thing]:
        return NOTHING  # that depends on the kind of its preset

    @property
    def voids(self) -> frozenset[Thing]:
        return frozenset({"boxes", "mask", "control"})


class Select(StageKeys):
    """Narrows the candidates of an item: to the sharpest, to those nearest to the prompt, or to what a person picks."""

    whole_item: ClassVar[bool] = True

    keep: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many of an item go on."""
    by: Literal["sharpness", "clip", "review"] = "sharpness"
    """`review` stops the job until somebody drops `.resume` with `picks`."""
    preset: Name | None = None
    """The helper model of clip; default: the preset "clip"."""

    @property
    def lane(self) -> Lane:
        return {"sharpness": "cpu", "clip": "gpu", "review": "person"}[self.by]  # type: ignore[return-value]

    @property
    def gives(self) -> frozenset[Thing]:
        return NOTHING

    @property
    def helper(self) -> str | None:
        return (self.preset or "clip") if self.by == "clip" else None


class Upscale(StageKeys):
    """Makes the picture larger."""

    factor: Annotated[float, Field(gt=1, le=8)] = 2.0
    """How many times as wide and high."""
    by: Name = "lanczos"
    """"lanczos", or a preset of the kind upscale."""

    @property
    def lane(self) -> Lane:
        return "gpu" if self.helper else "cpu"

    @property
    def voids(self) -> frozenset[Thing]:
        return frozenset({"boxes", "mask", "control"})

    @property
    def takes_variants(self) -> bool:
        return True

    @property
    def helper(self) -> str | None:
        return None if self.by == "lanczos" else self.by


class Hires(Generating):
    """Hires fix: makes the picture larger, then repaints it as img2img so that it gets the detail of its new size."""

    factor: Annotated[float, Field(gt=1, le=4)] = 1.5
    """How many times as wide and high."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.4
    """How far to move from the enlarged picture."""

    @property
    def voids(self) -> frozenset[Thing]:
        return frozenset({"boxes", "mask", "control"})


class Refine(Generating):
    """Goes over the picture with a second preset, as img2img at its own size."""

    strength: Annotated[float, Field(gt=0, le=1)] = 0.3
    """How far to move from the picture."""


class Detect(StageKeys):
    """Finds things: boxes for crop and detail."""

    label: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """What to look for, such as "mug" or "face"; needed with a preset."""
    by: Name = "subject"
    """"subject" (the largest thing that stands out, without a model), or a preset of the kind detect."""
    min_size: Annotated[int, Field(ge=1, le=16_384)] | None = None
    """Pixels of the shorter side below which a thing is too small."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """With a preset: how sure the model must be."""

    @model_validator(mode="after")
    def _needs_label(self) -> Self:
        if self.helper and not self.label:
            raise ValueError(f'by = "{self.by}" needs label: what to look for, such as label = "mug"')
        return self

    @property
    def lane(self) -> Lane:
        return "gpu" if self.helper else "cpu"

    @property
    def gives(self) -> frozenset[Thing]:
        return frozenset({"boxes"})

    @property
    def helper(self) -> str | None:
        return None if self.by == "subject" else self.by


class Detail(Generating):
    """Repaints each thing that was found at full resolution, and puts it back with a soft edge."""

    label: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Only things of this label; default: all that were found."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.4
    """How far to move from what is there."""
    padding: Annotated[int, Field(ge=0, le=1024)] = 32
    """Pixels around a thing that are repainted with it."""
    feather: Annotated[int, Field(ge=0, le=256)] = 16
    """Pixels over which the repainted part passes into the picture."""

    @property
    def needs(self) -> frozenset[Thing]:
        return frozenset({"picture", "boxes"})


class Crop(_Reshaping):
    """Cuts out a part: a box, the things that were found, or a shape."""

    padding: Annotated[int, Field(ge=0, le=8192)] = 0
    """Pixels to leave around the box."""
    box: Annotated[tuple[int, int, int, int], Field(strict=False)] | None = None
    """Left, top, right, bottom in pixels; default: what `detect` found."""
    aspect: Aspect | None = None
    """The shape to end with; without a box, the largest part of this shape."""
    gravity: Gravity = "center"
    """Which part is kept where only a shape is asked for."""

    @model_validator(mode="after")
    def _well_formed_box(self) -> Self:
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError("a box is [left, top, right, bottom], with left < right and top < bottom")
        return self

    @property
    def needs(self) -> frozenset[Thing]:
        return PICTURE if self.box or self.aspect else frozenset({"picture", "boxes"})


class Resize(_Reshaping):
    """Brings the picture to a size."""

    width: Side | None = None
    """Pixels; without height the shape is kept."""
    height: Side | None = None
    """Pixels; without width the shape is kept."""
    fit: Literal["cover", "contain", "stretch"] = "cover"
    """Where the shape differs: cut off what is too much, add bars, or distort."""
    color: Colour = "white"
    """Of the bars."""

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if self.width is None and self.height is None:
            raise ValueError("width, height or both are needed")
        return self


class Pad(_Reshaping):
    """Adds a border, and gives the mask of what it added: outpainting repaints that."""

    left: Annotated[int, Field(ge=0, le=8192)] = 0
    """Pixels to add."""
    right: Annotated[int, Field(ge=0, le=8192)] = 0
    """Pixels to add."""
    top: Annotated[int, Field(ge=0, le=8192)] = 0
    """Pixels to add."""
    bottom: Annotated[int, Field(ge=0, le=8192)] = 0
    """Pixels to add."""
    aspect: Aspect | None = None
    """The shape to end with, adding as little as possible on two sides."""
    color: Colour = "gray"
    """Of the border."""

    @model_validator(mode="after")
    def _adds_something(self) -> Self:
        if not (self.left or self.right or self.top or self.bottom or self.aspect):
            raise ValueError("left, right, top, bottom or aspect is needed")
        return self

    @property
    def gives(self) -> frozenset[Thing]:
        return frozenset({"picture", "mask"})


class Rotate(_Reshaping):
    """Turns the picture."""

    degrees: Annotated[float, Field(ge=-360, le=360)]
    """Clockwise; multiples of 90 lose no pixel, others grow the picture."""
    color: Colour = "white"
    """Of the corners."""


class Grayscale(_PictureWork):
    """Takes the colour out."""


class Color(_PictureWork):
    """Changes light and colour; 1 changes nothing."""

    brightness: Annotated[float, Field(ge=0, le=4)] = 1.0
    """0 is black."""
    contrast: Annotated[float, Field(ge=0, le=4)] = 1.0
    """0 is grey."""
    saturation: Annotated[float, Field(ge=0, le=4)] = 1.0
    """0 is without colour."""
    gamma: Annotated[float, Field(gt=0.1, le=10)] = 1.0
    """Above 1 lifts the shadows."""
    autocontrast: bool = False
    """Stretch to the whole range first."""


class Overlay(_PictureWork):
    """Lays a picture (a logo) or a text over it."""

    assets: ClassVar[tuple[str, ...]] = ("image", "font")

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A file of presets/assets/ or of the inbox."""
    text: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """What to write, instead of a picture."""
    position: Annotated[tuple[int, int], Field(strict=False)] | None = None
    """Where its top left corner comes, in pixels from the top left; negative: from the right and bottom."""
    anchor: Anchor = "bottom-right"
    """Which corner or side it keeps to, where there is no position."""
    margin: Annotated[int, Field(ge=0, le=8192)] = 16
    """Pixels between it and the edge, with anchor."""
    opacity: Annotated[float, Field(ge=0, le=1)] = 1.0
    """0 cannot be seen."""
    scale: Annotated[float, Field(gt=0, le=16)] = 1.0
    """How many times as large as it is."""
    font: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A TTF or OTF file; default: one that is built in."""
    size: Annotated[int, Field(ge=4, le=2048)] = 32
    """Of the text, in pixels."""
    color: Colour = "white"
    """Of the text."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.image is not None and self.text is not None:
            raise ValueError("image and text exclude each other")
        if self.image is None and self.text is None:
            raise ValueError("image or text is needed")
        return self


class Cleanup(_PictureWork):
    """Takes away noise and specks, and sharpens."""

    denoise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0 leaves all, 1 is as smooth as can be."""
    sharpen: Annotated[float, Field(ge=0, le=4)] = 0.0
    """0 leaves it, 1 is a visible sharpening."""
    despeckle: bool = False
    """Take away single pixels that stand out."""


class Variants(_Reshaping):
    """Gives several crops of the picture, each a file of its own in the end."""

    aspects: Annotated[tuple[Aspect, ...], Field(strict=False, min_length=1, max_length=16)] = (
        "1:1", "16:9", "9:16", "4:5", "2:3",
    )  # fmt: skip
    """Shapes; the file of "16:9" ends in _16x9."""
    gravity: Gravity = "center"
    """Which part is kept."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.aspects)) < len(self.aspects):
            raise ValueError("each aspect is accepted once")
        return self

    @property
    def gives(self) -> frozenset[Thing]:
        return frozenset({"picture", "variants"})

    @property
    def takes_variants(self) -> bool:
        return False


class Export(StageKeys):
    """Writes the finished picture, and its sidecar after it."""

    format: Literal["png", "jpeg", "webp", "avif"] = "png"
    """PNG keeps every pixel."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Of JPEG, WebP and AVIF."""
    max_bytes: Annotated[int, Field(ge=1000, le=1_000_000_000)] | None = None
    """The most that a file may have; the quality is lowered until it fits. Not for PNG."""
    name: Annotated[str, Field(min_length=1, max_length=80)] = "{job}_{candidate}"
    """The file's name without suffix; {job} and {candidate} stand for what they say."""
    to: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """"processed" also puts it into outputs/processed/; a path: into that folder, which allowed_roots must hold."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        unknown = [found for found in re.findall(r"{[^}]*}?|}", value) if found not in {"{job}", "{candidate}"}]
        if unknown:
            raise ValueError(f"{unknown[0]} is not known here; {{job}} and {{candidate}} are")
        if value != make_safe(value) or value.startswith("."):
            raise ValueError("a name that every file system takes is accepted, without folders, slashes and quotes")
        return value

    @model_validator(mode="after")
    def _fits_the_format(self) -> Self:
        if self.max_bytes is not None and self.format == "png":
            raise ValueError("max_bytes needs a format with a quality: jpeg, webp or avif")
        return self

    @property
    def gives(self) -> frozenset[Thing]:
        return NOTHING

    @property
    def takes_variants(self) -> bool:
        return True


#: Name -> the class of its keys.
STAGE_KEYS: Final[Mapping[str, type[StageKeys]]] = {
    "prepare": Prepare,
    "generate": Generate,
    "select": Select,
    "upscale": Upscale,
    "hires": Hires,
    "refine": Refine,
    "detect": Detect,
    "detail": Detail,
    "crop": Crop,
    "resize": Resize,
    "pad": Pad,
    "rotate": Rotate,
    "grayscale": Grayscale,
    "color": Color,
    "overlay": Overlay,
    "cleanup": Cleanup,
    "variants": Variants,
    "export": Export,
}
