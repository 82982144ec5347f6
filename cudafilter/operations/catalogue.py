"""The catalogue: each filter's name, parameters, limits and example, as plain data.

Imported by ``cudafilter --help``, so it imports nothing heavy. ``operations/make.py`` turns an
entry and its parameters into a Filter; the command line makes a subcommand of each entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from cudafilter.operations.alike import ALIKE
from cudafilter.operations.catalogue_points import POINTS
from cudafilter.operations.parameter import GROUPS, FilterSpec, Parameter

MAX_RADIUS = 4095
"""Kernel radius in pixels past which a request is taken for a mistake. Both factors of such a
kernel just fit into the 64 KiB of constant memory."""

MAX_DENSE_RADIUS = 512
"""The same for kernels that are no product of a column and a row. Their cost grows with its
square."""


_SCALE = Parameter("scale", float, 1.0, "Factor on the result.", above=0, most=1e6)
_AMOUNT = Parameter(
    "amount", float, 1.0, "Strength; 0 leaves the image as it is.", least=0, most=1e3
)
_SIGMA = Parameter(
    "sigma", float, 2.0, "Standard deviation in pixels.", above=0, most=MAX_RADIUS / 3
)
_BIAS = Parameter(
    "bias", float, 0.0, "Added to the result, as a fraction of full scale.", least=-1e3, most=1e3
)
_MIDDLE = _BIAS._replace(
    default=None, help="Where 0 goes, as a fraction of full scale; 128/255 unless given."
)
_BOTH_SIGNS = (
    " Both signs stand on mid-gray; --bias 0 leaves the numbers of a float image as they are. Alpha"
    " is kept."
)
_ANGLE = Parameter(
    "angle", float, 0.0, "In degrees, anticlockwise from the horizontal.", least=-360, most=360
)
_GRADIENT = (
    "Magnitude of the horizontal and vertical {0} gradients, with {1}, times --scale. Integers are"
    " clamped to full scale. A step from black to white along an axis gives 4 times full scale in"
    " sobel, scharr and prewitt alike; --scale 0.25 shows it without clipping. A slanted one gives"
    " up to 4.8 times. Alpha is kept."
)

_SHAPES = (
    "The shape is a square, a disk (the pixels no further than --radius from the middle), a cross"
    " of a row and a column, or a file with a mask as --weights of kernel takes them: numbers that"
    " are not 0 count."
)
_ALPHA_TOO = "Channels are treated one by one, alpha too."
_ALPHA_KEPT = "Channels are treated one by one. Alpha is kept."
_SHAPE_RADIUS = Parameter(
    "radius",
    int,
    None,
    "Radius in pixels; 1 unless given. A file has its own size.",
    least=0,
    most=MAX_RADIUS,
)
_SHAPE = Parameter(
    "shape", str, "square", "square, disk, cross, or the name of a file.",
    words=("square", "disk", "cross"),
)  # fmt: skip


def _in_groups(*specs: FilterSpec) -> list[FilterSpec]:
    return sorted(specs, key=lambda spec: GROUPS.index(spec.group))


CATALOGUE: dict[str, FilterSpec] = {
    spec.name: spec
    for spec in _in_groups(
        FilterSpec(
            "blur",
            "Gaussian blur.",
            "The kernel reaches ceil(3 sigma) pixels unless --radius says otherwise; its weights"
            " are sampled and normalised in float64. Alpha is blurred along.",
            (
                _SIGMA,
                Parameter(
                    "radius",
                    int,
                    None,
                    "Kernel radius in pixels; ceil(3 sigma) unless given.",
                    least=0,
                    most=MAX_RADIUS,
                ),
            ),
            "cudafilter blur --sigma 3 photo.jpg soft.jpg",
            "smooth",
        ),
        FilterSpec(
            "box",
            "Mean over a square.",
            "Every pixel becomes the mean of the square of 2 radius + 1 pixels around it. Alpha is"
            " averaged along.",
            (
                Parameter(
                    "radius", int, 2, "Radius in pixels; 2 is a 5x5 box.", least=0, most=MAX_RADIUS
                ),
            ),
            "cudafilter box --radius 4 photo.jpg soft.jpg",
            "smooth",
        ),
        FilterSpec(
            "sharpen",
            "Sharpen with a 3x3 kernel.",
            "Adds --amount times the difference from the four neighbours: at 1 the kernel is"
            " 0 -1 0; -1 5 -1; 0 -1 0. Alpha is kept.",
            (_AMOUNT,),
            "cudafilter sharpen --amount 0.6 photo.jpg crisp.jpg",
            "sharpen",
        ),
        FilterSpec(
            "unsharp",
            "Unsharp mask.",
            "Adds --amount times the difference from a Gaussian blur. Differences up to"
            " --threshold (a fraction of full scale) count for nothing and larger ones are"
            " reduced by it, so flat noise stays and no step appears at the limit. Alpha is kept.",
            (
                _SIGMA,
                _AMOUNT,
                Parameter(
                    "threshold",
                    float,
                    0.0,
                    "Least difference that counts, as a fraction of full scale.",
                    least=0,
                    most=1,
                ),
            ),
            "cudafilter unsharp --sigma 1.5 --amount 0.8 --threshold 0.01 photo.jpg crisp.jpg",
            "sharpen",
        ),
        FilterSpec(
            "sobel",
            "Edges: Sobel gradient magnitude.",
            _GRADIENT.format("Sobel", "OpenCV's weights 1 2 1"),
            (_SCALE,),
            "cudafilter sobel --gray photo.jpg edges.png",
            "edges",
        ),
        FilterSpec(
            "scharr",
            "Edges: Scharr gradient magnitude.",
            _GRADIENT.format("Scharr", "a quarter of OpenCV's weights 3 10 3"),
            (_SCALE,),
            "cudafilter scharr --scale 0.25 photo.jpg edges.png",
            "edges",
        ),
        FilterSpec(
            "prewitt",
            "Edges: Prewitt gradient magnitude.",
            _GRADIENT.format("Prewitt", "4/3 of the weights 1 1 1"),
            (_SCALE,),
            "cudafilter prewitt photo.jpg edges.png",
            "edges",
        ),
        FilterSpec(
            "laplacian",
            "Edges: Laplacian.",
            "The kernel 0 1 0; 1 -4 1; 0 1 0 times --scale. Negative results are black in"
            " integers, and stay in floats. Alpha is kept.",
            (_SCALE,),
            "cudafilter laplacian --scale 2 photo.jpg edges.png",
            "edges",
        ),
        FilterSpec(
            "emboss",
            "Relief lit from the upper left, on mid-gray.",
            "The kernel -1 -1 0; -1 0 1; 0 1 1 times --scale, plus half of full scale. Alpha is"
            " kept.",
            (_SCALE,),
            "cudafilter emboss --gray photo.jpg relief.png",
            "edges",
        ),
        FilterSpec(
            "median",
            "Median of a square: noise goes, edges stay.",
            "Every sample becomes the middle one of the (2 radius + 1)^2 samples around it. Each"
            " channel is ranked by itself, alpha like the others and colour as it is, so that each"
            " sample of the result is one of the image. NaN sorts last.",
            (
                Parameter(
                    "radius", int, 1, "Radius in pixels; 1 is a 3x3 window.", least=0, most=127
                ),
            ),
            "cudafilter median --radius 2 scan.png clean.png",
            "rank and shape",
        ),
        FilterSpec(
            "percentile",
            "Any other rank of a square.",
            "Every sample becomes the one of the (2 radius + 1)^2 samples around it that is above"
            " --rank percent of the others: 0 is the least, 50 the median, 100 the largest. Alpha"
            " and NaN as in median.",
            (
                Parameter(
                    "radius", int, 1, "Radius in pixels; 1 is a 3x3 window.", least=0, most=127
                ),
                Parameter("rank", float, 50.0, "In percent; 50 is the median.", least=0, most=100),
            ),
            "cudafilter percentile --radius 3 --rank 25 in.png out.png",
            "rank and shape",
        ),
        *(
            FilterSpec(
                name,
                summary,
                f"{what} {_SHAPES} {alpha} NaN sorts last.",
                (_SHAPE_RADIUS, _SHAPE),
                example,
                "rank and shape",
            )
            for name, summary, what, alpha, example in (
                (
                    "erode",
                    "Least sample around: dark grows.",
                    "Every sample becomes the least one under the shape.",
                    _ALPHA_TOO,
                    "cudafilter erode --radius 2 mask.png thinner.png",
                ),
                (
                    "dilate",
                    "Largest sample around: bright grows.",
                    "Every sample becomes the largest one under the shape, which is mirrored as"
                    " mathematical morphology has it.",
                    _ALPHA_TOO,
                    "cudafilter dilate --shape disk --radius 4 mask.png thicker.png",
                ),
                (
                    "open",
                    "Erode, then dilate: small bright things go.",
                    "What is bright and smaller than the shape goes, and the rest keeps its size.",
                    _ALPHA_TOO,
                    "cudafilter open --radius 2 mask.png clean.png",
                ),
                (
                    "close",
                    "Dilate, then erode: small dark things go.",
                    "What is dark and smaller than the shape goes, and the rest keeps its size.",
                    _ALPHA_TOO,
                    "cudafilter close --radius 3 page.png filled.png",
                ),
                (
                    "tophat",
                    "What open takes away.",
                    "The image less the opened image: small bright things on black.",
                    _ALPHA_KEPT,
                    "cudafilter tophat --shape disk --radius 9 stars.png points.png",
                ),
                (
                    "blackhat",
                    "What close adds.",
                    "The closed image less the image: small dark things, bright on black.",
                    _ALPHA_KEPT,
                    "cudafilter blackhat --radius 7 page.png ink.png",
                ),
                (
                    "outline",
                    "Edges: dilate less erode.",
                    "The dilated image less the eroded one, which is the morphological gradient.",
                    _ALPHA_KEPT,
                    "cudafilter outline --gray photo.jpg edges.png",
                ),
            )
        ),
        FilterSpec(
            "kernel",
            "Your own kernel.",
            "WEIGHTS is inline (rows end in ';', numbers are set apart by spaces or commas) or the"
            " name of a .txt, .csv or .npy file. It is correlated with the image, as OpenCV,"
            " Pillow and SciPy do; --flip makes it a convolution. An even side is anchored right"
            " of and below its middle. Alpha is filtered along if no weight is negative and their"
            " sum is not 0, and kept otherwise.",
            (
                Parameter(
                    "weights", str, None, "The kernel: inline text or a file.", required=True
                ),
                Parameter("normalize", bool, False, "Divide the weights by their sum."),
                _BIAS,
                Parameter(
                    "flip", bool, False, "Flip both axes first: convolution, not correlation."
                ),
            ),
            'cudafilter kernel --weights "0 -1 0; -1 5 -1; 0 -1 0" in.png out.png',
            "your own",
        ),
        FilterSpec(
            "motion",
            "Motion blur: mean along a line.",
            "The line has --length pixels and its middle on the pixel. A tap counts by 1 less its"
            " distance from the line, which makes it smooth at any angle; the weights sum to 1."
            " Alpha is blurred along.",
            (Parameter("length", float, 9.0, "In pixels.", least=1, most=1000), _ANGLE),
            "cudafilter motion --length 25 --angle 30 photo.jpg moving.jpg",
            "smooth",
        ),
        FilterSpec(
            "disk",
            "Lens blur: mean over a disk.",
            "Each pixel counts by the share of its area that lies within --radius of the middle,"
            " so the rim is smooth and the radius need not be whole; 0.5 and less leave the image"
            " as it is. Alpha is averaged along.",
            (Parameter("radius", float, 3.0, "In pixels.", above=0, most=MAX_DENSE_RADIUS),),
            "cudafilter disk --radius 6.5 photo.jpg bokeh.jpg",
            "smooth",
        ),
        *ALIKE,
        FilterSpec(
            "highpass",
            "What a Gaussian blur takes away, on mid-gray.",
            "The image less its blur, times --scale." + _BOTH_SIGNS,
            (_SIGMA, _SCALE, _MIDDLE),
            "cudafilter highpass --sigma 4 --scale 2 photo.jpg detail.png",
            "sharpen",
        ),
        FilterSpec(
            "dog",
            "Edges and spots: difference of two Gaussians.",
            "What blur --sigma gives less what a blur of --ratio times that gives, times --scale:"
            " details of about that size, bright ones positive. At 1.6 it resembles log, which is"
            " of the other sign." + _BOTH_SIGNS,
            (
                _SIGMA._replace(most=MAX_DENSE_RADIUS // 3),
                Parameter("ratio", float, 1.6, "Wider over narrower sigma.", above=1, most=1e3),
                _SCALE,
                _MIDDLE,
            ),
            "cudafilter dog --sigma 1.5 --scale 3 --gray photo.jpg spots.png",
            "edges",
        ),
        FilterSpec(
            "log",
            "Edges and spots: Laplacian of a Gaussian.",
            "The Laplacian of the blurred image times sigma^2, by which an edge has the same"
            " height at every sigma, and times --scale. Bright spots are negative. The kernel"
            " reaches ceil(4 sigma) pixels." + _BOTH_SIGNS,
            (_SIGMA._replace(above=None, least=0.2, most=MAX_DENSE_RADIUS / 4), _SCALE, _MIDDLE),
            "cudafilter log --sigma 3 --scale 2 --gray photo.jpg spots.png",
            "edges",
        ),
        FilterSpec(
            "gabor",
            "Stripes of one width and direction.",
            "A wave of --wavelength that runs along --angle (0: upright stripes) under a Gaussian"
            " of --sigma along it and sigma / aspect across, so centred that flat areas give 0."
            " The absolute weights sum to 1, so that at --scale 1 nothing clips." + _BOTH_SIGNS,
            (
                _SIGMA._replace(default=3.0, above=None, least=0.5, most=MAX_DENSE_RADIUS // 3),
                Parameter("wavelength", float, 6.0, "In pixels.", least=2, most=1e4),
                _ANGLE,
                Parameter(
                    "phase", float, 0.0, "In degrees; 0 is even, 90 odd.", least=-360, most=360
                ),
                Parameter("aspect", float, 0.5, "Width over length.", least=0.05, most=20),
                _SCALE,
                _MIDDLE,
            ),
            "cudafilter gabor --wavelength 8 --angle 45 --scale 3 photo.jpg stripes.png",
            "edges",
        ),
        *POINTS,
    )
}


def grouped() -> Iterator[tuple[str, list[FilterSpec]]]:
    """The groups that have filters, each with its own, in CATALOGUE's order."""
    for group, specs in groupby(CATALOGUE.values(), key=lambda spec: spec.group):
        yield group, list(specs)
