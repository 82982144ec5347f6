"""TIFF's tags, and what some of their values mean."""

from __future__ import annotations

from cudafilter.formats import ifd

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SAMPLES, COLOR_MAP, TILE_WIDTH, TILE_ROWS = 277, 320, 322, 323
INK_SET, EXTRA, FORMAT = 332, 338, 339
SLICES = 32997
KIND, PAGE = 254, 297
XMP, ICC, LAYERS = 700, 34675, 37724
INVERTED, GRAY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6

LAYOUT = frozenset(
    {*range(254, 260), *range(262, 267), 273, 277, 278, 279, 280, 281, 284, *range(288, 294), 297}
    | {317, *range(320, 326), *range(326, 329), 330, 332, 334, 336, 337, 338, 339, 340, 341}
    | {*range(343, 348), *range(512, 522), 529, 530, 531, 532, 559, 50674, XMP, ICC, LAYERS}
)
"""Tags that tell how pixels are stored, or (LAYERS) Photoshop's layers of the old pixels."""
RESOLUTION = frozenset({ifd.X_RESOLUTION, ifd.Y_RESOLUTION, ifd.RESOLUTION_UNIT})
