"""Point operations as their users see them; a part of the catalogue."""

from __future__ import annotations

from cudafilter.operations.parameter import FilterSpec, Parameter

_ALPHA = " Alpha is kept, and colour is taken as it is, not premultiplied."

POINTS = (
    FilterSpec(
        "canny",
        "Thin edges, by Canny.",
        "Blurs by a Gaussian of --sigma, takes the largest gradients along their direction, of at"
        " least --high, and follows them down to --low; white on black. Gradients count as in"
        " sobel: a step from black to white has 4. All is done in whole numbers, so that every"
        " engine finds the same edges; a float image is taken as 65536 levels from 0 to 1. Each"
        " channel is treated by itself. In a chain, only steps that compute no samples may come"
        " before it." + _ALPHA,
        (
            Parameter(
                "sigma", float, 1.0, "Of the Gaussian, in pixels; 0 is none.", least=0, most=100
            ),
            Parameter(
                "low", float, 0.1, "Least gradient, a fraction of full scale.", least=0, most=10
            ),
            Parameter("high", float, 0.2, "Where an edge begins.", least=0, most=10),
        ),
        "cudafilter canny --gray --sigma 1.5 --low 0.2 --high 0.6 photo.jpg edges.png",
        "edges",
    ),
    FilterSpec(
        "invert",
        "Negative: full scale less each sample.",
        "Black becomes white and white black. Floats are not clamped: 1.5 becomes -0.5." + _ALPHA,
        (),
        "cudafilter invert negative.tif positive.tif",
        "point",
    ),
    FilterSpec(
        "levels",
        "Black point, white point and gamma.",
        "--black goes to 0 and --white to full scale, straight, and what lies between is raised"
        " to the power 1 / gamma: above 1 it becomes brighter. A black above white inverts."
        " Integers are clamped; floats go on below and above, below with the sign turned."
        + _ALPHA,
        (
            Parameter(
                "black", float, 0.0, "What becomes black, a fraction of full scale.",
                least=-1e3, most=1e3,
            ),
            Parameter(
                "white", float, 1.0, "What becomes white, a fraction of full scale.",
                least=-1e3, most=1e3,
            ),
            Parameter("gamma", float, 1.0, "Above 1 is brighter.", least=0.01, most=100),
        ),
        "cudafilter levels --black 0.05 --white 0.9 --gamma 1.2 scan.png clear.png",
        "point",
    ),
    FilterSpec(
        "threshold",
        "Black and white.",
        "A sample becomes full scale where it is at least --at, and 0 elsewhere. --otsu finds the"
        " threshold, of each channel its own: the one that sets dark and bright apart best (Otsu,"
        " 1979), by a histogram of 256 levels for 8 bits, 65536 for others; a float image is"
        " counted from 0 to 1. In a chain, only steps that compute no samples may come before"
        " --otsu. NaN becomes 0." + _ALPHA,
        (
            Parameter(
                "at", float, None, "A fraction of full scale; 0.5 unless given.",
                least=-1e3, most=1e3,
            ),
            Parameter("otsu", bool, False, "Find the threshold."),
        ),
        "cudafilter threshold --otsu page.png ink.png",
        "point",
    ),
)  # fmt: skip
