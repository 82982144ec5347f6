"""Filters, kernels and their maker by the names that the Python API has for them."""

from __future__ import annotations

from cudafilter.operations.correlation import Correlation as Filter
from cudafilter.operations.kernel import Kernel, Weights
from cudafilter.operations.make import gaussian, make

__all__ = ["Filter", "Kernel", "Weights", "gaussian", "make"]
