"""Filters that take a mean of what is alike: their entries in the catalogue, as plain data."""

from __future__ import annotations

from cudafilter.operations.parameter import FilterSpec, Parameter

MAX_BILATERAL_RADIUS = 50
"""Radius in pixels past which a bilateral filter is taken for a mistake: of 7,845 pixels each takes
an exponential."""

MAX_PATCH = 11
"""Most pixels of a side of the patches that denoise compares."""

MAX_SEARCH = 51
"""The same of the square in which it looks for them: each pixel takes 2,600 exponentials then."""

ALIKE = (
    FilterSpec(
        "bilateral",
        "Mean of what is alike around: edges stay.",
        "Each pixel around counts by exp(-distance^2 / (2 sigma^2)) times exp(-change^2 / (2"
        " range^2)): the distance in pixels, the change of colour as a fraction of full scale,"
        " Euclidean over all colours together. The window is round, and reaches ceil(3 sigma)"
        " pixels unless --radius says otherwise. Alpha is kept, and transparent pixels count as the"
        " pixel's own colour. A pixel with NaN or infinity stays as it is and counts for no other.",
        (
            Parameter("sigma", float, 2.0, "Standard deviation in pixels.", least=0.1, most=1000),
            Parameter(
                "range",
                float,
                0.1,
                "Standard deviation of colours, as a fraction of full scale.",
                least=1e-6,
                most=1000,
            ),
            Parameter(
                "radius",
                int,
                None,
                "Radius in pixels; ceil(3 sigma) unless given.",
                least=0,
                most=MAX_BILATERAL_RADIUS,
            ),
        ),
        "cudafilter bilateral --sigma 3 --range 0.08 photo.jpg smooth.jpg",
        "smooth",
    ),
    FilterSpec(
        "denoise",
        "Less noise, by a mean of what looks alike around: detail stays.",
        "Non-local means. Each pixel of the square of --search pixels around counts by"
        " exp(-D / strength^2): D is the mean square of the differences between the patch of"
        " --patch by --patch pixels around it and that around the pixel itself, over all colours"
        " together, as fractions of full scale. A strength like the standard deviation of the"
        " noise is a good start. Alpha is kept, and what transparent pixels hide does not count. A"
        " pixel with NaN or infinity stays as it is and counts for no other.",
        (
            Parameter(
                "strength",
                float,
                0.04,
                "How much patches may differ, as a fraction of full scale.",
                least=1e-6,
                most=1000,
            ),
            Parameter("patch", int, 7, "Side of a patch in pixels, odd.", least=1, most=MAX_PATCH),
            Parameter(
                "search",
                int,
                21,
                "Side in pixels of the square that is searched, odd.",
                least=1,
                most=MAX_SEARCH,
            ),
        ),
        "cudafilter denoise --strength 0.06 photo.jpg clean.jpg",
        "smooth",
    ),
)
