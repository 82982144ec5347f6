"""Filters that take a mean of what is alike: their entries in the catalogue, as plain data."""

from __future__ import annotations

from cudafilter.operations.parameter import FilterSpec, Parameter

MAX_BILATERAL_RADIUS = 50
"""Radius in pixels past which a bilateral filter is taken for a mistake: of 7,845 pixels each takes
an exponential."""

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
)
