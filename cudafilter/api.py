"""The Python API's shortcuts for pixels; the rest of it is re-exported from where it lives."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import numpy as np

from cudafilter.engines import Engine, require_engine
from cudafilter.engines.open import open_engine, resident_for
from cudafilter.engines.resident import on_device
from cudafilter.engines.within import Within, filtered_within
from cudafilter.errors import ParameterError
from cudafilter.operations.area import Area, mask_of
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.light import SRGB, Light
from cudafilter.operations.make import made
from cudafilter.operations.operation import Operation, require_operation
from cudafilter.operations.parameter import FilterSpec
from cudafilter.operations.pixels import Pixels, require_pixels
from cudafilter.operations.region import Region

if TYPE_CHECKING:
    from PIL.Image import Image

    from cudafilter.proof.agreement import Agreement

Host = TypeVar("Host", Pixels, "Image")
"""What is filtered in the host's memory."""


class OnGpu(Protocol):
    """What is filtered in the memory of a GPU; it may have DLPack in place of this."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


MODES = {"L": False, "LA": True, "RGB": False, "RGBA": True, "F": False, "I;16": False}
"""Modes of Pillow's images that are filtered as they are; whether the last channel is alpha."""


@overload
def apply(
    pixels: Host,
    filter: str | Operation,
    *,
    border: str | Border = "edge",
    alpha: bool = False,
    engine: str | Engine = "auto",
    mask: Host | None = None,
    region: str | Sequence[str] = (),
    feather: int = 0,
    linear: bool = False,
    **parameters: Any,
) -> Host: ...
@overload
def apply(
    pixels: OnGpu,
    filter: str | Operation,
    *,
    border: str | Border = "edge",
    alpha: bool = False,
    engine: str | Engine = "auto",
    out: Any = None,
    stream: object = None,
    **parameters: Any,
) -> Any: ...
def apply(
    pixels: Any,
    filter: str | Operation,
    *,
    border: str | Border = "edge",
    alpha: bool = False,
    engine: str | Engine = "auto",
    mask: Any = None,
    region: str | Sequence[str] = (),
    feather: int = 0,
    linear: bool = False,
    out: Any = None,
    stream: object = None,
    **parameters: Any,
) -> Any:
    """Filter one image, (H, W) or (H, W, C) of uint8, uint16 or float32; returns the same shape.

    *filter* is a name of the catalogue with its *parameters*, or an operation, such as a Filter.
    *alpha* says that the last channel is alpha: colour is then filtered premultiplied. *engine* is
    a name, or an open engine, which saves opening one a call.

    *mask*, (H, W) of the same types or bool, says where: white or True is filtered, black stays. So
    does *region*, one or several of ``"X,Y,W,H"`` in pixels or percent, faded in over *feather*
    pixels inside its sides. Outside, the samples are those of *pixels*. *linear* filters integers
    in the linear light of sRGB; floats are light already.

    An image of Pillow, of one of MODES, gives one of the same mode, which tells of alpha.

    Pixels in a GPU's memory, of whatever has ``__cuda_array_interface__`` or DLPack, are filtered
    there, in order with what else is queued on *stream*: a stream or its handle, by default the one
    on which CuPy or PyTorch work now, that the interface tells, or the legacy default stream. The
    result is *out*, if that is given, an array there of the same shape and type; else a
    DeviceArray, which CuPy and PyTorch take without a copy. *mask*, *region*, *feather* and
    *linear* are for pixels on the host, *out* and *stream* for those on a GPU.

    Raises ParameterError for arguments that make no sense, ImageError for a mask of another size
    and a region outside, and EngineUnavailable for an engine that cannot run here.

    >>> apply(np.zeros((4, 4), np.uint8), "blur", sigma=1.5).shape
    (4, 4)
    """
    filter, edge = made(filter, parameters), Border.named(border)
    if on_device(pixels):
        for name, given in {
            "mask": mask is not None, "region": region, "feather": feather, "linear": linear,
        }.items():  # fmt: skip
            if given:
                raise ParameterError(name, "is for pixels in the host's memory, not a GPU's")
        return resident_for(engine, pixels).run(pixels, filter, edge, alpha, out, stream)
    for name, other in {"out": out, "stream": stream}.items():
        if other is not None:
            raise ParameterError(name, "is for pixels in a GPU's memory")
    array, mode = _array(pixels), _mode(pixels)
    alpha = alpha or MODES.get(mode, False)
    flat = isinstance(array, np.ndarray) and array.ndim == 2
    shaped = require_pixels(array[..., None] if flat else array, alpha)
    regions = tuple(region) if isinstance(region, list | tuple) else (region,)
    within = None
    if mask is not None or regions or linear or feather:
        within = _within(shaped, alpha, _array(mask, "mask"), regions, feather, linear)
    opened = open_engine(engine) if isinstance(engine, str) else require_engine(engine)
    try:
        if within is None:
            done = opened.run(shaped, filter, edge, alpha).pixels
        else:
            done = filtered_within(opened, shaped, filter, edge, within).result
    finally:
        if opened is not engine:
            opened.close()
    done = done.reshape(array.shape)
    return _image(done, pixels) if mode else done


def compare(
    result: Any,
    source: Any,
    filter: Operation,
    border: str | Border = Border(),
    alpha: bool = False,
    quick: bool = False,
) -> Agreement:
    """Compare *result*, what apply() made of *source*, with the float64 reference.

    Both are as apply() takes them, and *border* too. The host compares: what is in a GPU's memory
    is downloaded first. *quick* looks at 4,096 samples only, taken at random, other ones each
    time. Raises ParameterError if shape or type differ.
    """
    from cudafilter import check  # filters do without

    require_operation(filter)
    alpha = alpha or MODES.get(_mode(source), False)
    ours, theirs = (
        resident_for("auto", each).download(each) if on_device(each) else _array(each)
        for each in (result, source)
    )
    return check.compare(ours, theirs, filter, border, alpha, quick)


def _mode(pixels: object, name: str = "pixels") -> str:
    """The mode of an image of Pillow; empty for what is none. *name* is the argument that it is."""
    pillow: Any = sys.modules.get("PIL.Image")
    if pillow is None or not isinstance(pixels, pillow.Image):
        return ""
    mode = str(pixels.mode)
    if mode not in MODES:
        raise ParameterError(
            name,
            f"an image of mode {mode} is not filtered as it is; {', '.join(MODES)} are",
            hint="convert it, such as by image.convert('RGB')",
        )
    return mode


def _array(pixels: Any, name: str = "pixels") -> Any:
    """An image of Pillow as an array; what is none as it is."""
    return np.asarray(pixels) if _mode(pixels, name) else pixels


def _image(pixels: Pixels, like: Any) -> Any:
    """*pixels* as an image of Pillow, with the mode of *like* and what it knows of itself."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.info = like.info.copy()
    return image


def _within(
    pixels: Pixels,
    alpha: bool,
    mask: Pixels | None,
    regions: Sequence[str],
    feather: int,
    linear: bool,
) -> Within:
    """How *pixels* (H, W, C) are filtered by apply()'s arguments."""
    height, width, channels = pixels.shape
    area = light = None
    if not isinstance(feather, int | np.integer) or feather < 0:
        raise ParameterError("feather", f"must be a whole number from 0 on, not {feather!r}")
    if feather and not regions:
        raise ParameterError("feather", "is for the sides of regions")
    if mask is not None or regions:
        weights = None if mask is None else mask_of(_mask_pixels(mask), False)
        found = tuple(map(Region.parsed, regions))
        area = Area(weights, found, feather).within(width, height)
    if linear and pixels.dtype.kind == "u":
        light = Light((SRGB,) * (channels - alpha), pixels.dtype, alpha)
    return Within(alpha, area, light)


def _mask_pixels(mask: Any) -> Pixels:
    """*mask*, (H, W) of a type of pixels or of bool, as pixels."""
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        mask = mask[..., None].astype(np.float32 if mask.dtype == np.bool_ else mask.dtype)
    return require_pixels(mask, name="mask")


def filters() -> Mapping[str, FilterSpec]:
    """The catalogue: name -> what the filter does, its parameters and an example."""
    return dict(CATALOGUE)
