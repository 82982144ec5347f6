"""Words that are no command, option or value: what was likely meant is told."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from cudafilter.cli import _OTHERS, app, options, suggest
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.choices import BORDERS, ENGINES, EXISTING


def hint_of(*arguments: str) -> str | None:
    """The hint for a wrong command line."""
    result = CliRunner().invoke(app, list(arguments), prog_name="cudafilter")
    assert result.exit_code == 2
    assert "error: " in result.stderr
    hints = [line for line in result.stderr.splitlines() if line.startswith("hint: ")]
    return hints[0].removeprefix("hint: ") if hints else None


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("gaussian", "blur"),
        ("GaussianBlur", "blur"),
        ("gaussian-blur", "blur"),
        ("blurr", "blur"),
        ("Blur", "blur"),
        ("mean", "box"),
        ("usm", "unsharp"),
        ("unsharp_mask", "unsharp"),
        ("edges", "sobel"),
        ("sobl", "sobel"),
        ("schar", "scharr"),
        ("laplace", "laplacian"),
        ("convolve", "kernel"),
        ("filter2D", "kernel"),
        ("benchmark", "bench"),
        ("devices", "info"),
        ("list", "filters"),
    ],
)
def test_a_wrong_command_gets_the_likely_one(word: str, meant: str) -> None:
    assert hint_of(word, "a.png", "b.png") == f"did you mean {meant}?"


ELSEWHERE = {
    "ImageMagick": {
        "-blur": "blur", "-gaussian-blur": "blur", "-sharpen": "sharpen", "-unsharp": "unsharp",
        "-edge": "sobel", "-canny": "canny", "-emboss": "emboss", "-motion-blur": "motion",
        "-despeckle": "median", "-statistic": "median", "-morphology": "erode",
        "-negate": "invert", "-level": "levels", "-gamma": "levels", "-auto-threshold": "threshold",
        "compare": "preview", "montage": "preview",
        "-convolve": "kernel", "-selective-blur": "bilateral", "-bilateral-blur": "bilateral",
    },
    "OpenCV": {
        "cv2.GaussianBlur": "blur", "cv2.blur": "blur", "boxFilter": "box", "medianBlur": "median",
        "cv2.bilateralFilter": "bilateral", "cv2.Sobel": "sobel", "Scharr": "scharr",
        "cv2.Laplacian": "laplacian", "cv2.Canny": "canny", "filter2D": "kernel",
        "sepFilter2D": "kernel", "morphologyEx": "open", "getGaborKernel": "gabor",
        "bitwise_not": "invert",
    },
    "scikit-image": {
        "skimage.filters.gaussian": "blur", "filters.median": "median", "unsharp_mask": "unsharp",
        "filters.sobel": "sobel", "filters.prewitt": "prewitt",
        "laplace": "laplacian", "difference_of_gaussians": "dog", "feature.canny": "canny",
        "denoise_bilateral": "bilateral", "fastNlMeansDenoising": "denoise",
        "morphology.erosion": "erode", "dilation": "dilate",
        "white_tophat": "tophat", "black_tophat": "blackhat", "threshold_otsu": "threshold",
        "adjust_gamma": "levels",
    },
    "SciPy": {
        "ndimage.gaussian_filter": "blur", "uniform_filter": "box", "median_filter": "median",
        "percentile_filter": "percentile", "minimum_filter": "erode", "maximum_filter": "dilate",
        "gaussian_laplace": "log", "gaussian_gradient_magnitude": "sobel",
        "correlate": "kernel", "grey_opening": "open or close",
    },
    "G'MIC": {
        "blur_xy": "blur", "blur_linear": "motion", "blur_bokeh": "disk", "boxfilter": "box",
        "gradient_norm": "sobel", "-sharpen": "sharpen", "fx_unsharp": "unsharp",
        "negate": "invert", "cut": "threshold", "correlate": "kernel", "edges": "sobel",
    },
}  # fmt: skip
"""Program -> what it calls a filter -> ours."""


@pytest.mark.parametrize(
    ("program", "word", "ours"),
    [(name, word, ours) for name, words in ELSEWHERE.items() for word, ours in words.items()],
)
def test_names_of_other_programs_lead_to_ours(program: str, word: str, ours: str) -> None:
    # morphologyEx, -morphology, bitwise_not: the operation is an argument there.
    known = [*CATALOGUE, *_OTHERS]
    assert suggest.command(word, known) == f"did you mean {ours}?"
    if word.startswith("-"):
        assert hint_of(word, "2", "a.png", "b.png") == f"did you mean {ours}?"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("grayscale", "no command changes colours; the option --gray turns an image gray first"),
        ("resize", "no command resizes, turns or crops"),
        ("help", "cudafilter --help"),
        ("zzz", None),
        ("photo.jpg", None),
    ],
)
def test_what_is_not_there_is_told(word: str, told: str | None) -> None:
    assert hint_of(word) == told


@pytest.mark.parametrize(
    ("word", "meant"),
    [("--threads", "--jobs"), ("--grey", "--gray"), ("--overwrite", "--existing")],
)
def test_a_wrong_option_gets_the_one_that_does_it(word: str, meant: str) -> None:
    assert hint_of("blur", word, "a", "b") == f"did you mean {meant}?"


def test_an_option_for_the_output_is_not_needed() -> None:
    told = "the output is the last word: cudafilter FILTER SRC... DEST"
    assert hint_of("blur", "-o", "b.png", "a.png") == told


def test_a_misspelt_option_is_told_in_the_error() -> None:
    result = CliRunner().invoke(app, ["blur", "--sigam", "2", "a", "b"])
    assert result.exit_code == 2
    assert "--sigma" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("blur --border mirror", "reflect"),
        ("blur --border replicate", "edge"),
        ("blur --border symetric", "symmetric"),
        ("blur --engine gpu", "cuda"),
        ("blur --variant tield", "tiled"),
        ("blur --existing replace", "overwrite"),
        ("bench gaussian", "blur"),
        ("bench --dtypes uint8,float", "float32"),
    ],
)
def test_a_wrong_value_gets_the_likely_one(arguments: str, meant: str) -> None:
    assert hint_of(*arguments.split(), *(["a", "b"] * ("blur" in arguments))) == (
        f"did you mean {meant}?"
    )


def test_every_suggestion_is_there_and_no_word_for_it_is() -> None:
    commands = {*CATALOGUE, *_OTHERS}
    assert suggest.COMMANDS.keys() <= commands
    shared = {flag for group in options.shared().values() for o in group for flag in o.opts}
    own = {"--" + p.name.replace("_", "-") for spec in CATALOGUE.values() for p in spec.parameters}
    assert suggest.OPTIONS.keys() <= shared | own
    assert not shared & {word for words in suggest.OPTIONS.values() for word in words.split()}
    assert {"edge", "reflect", "wrap", "constant"} <= set(BORDERS)
    assert {"cuda", "cpu"} <= set(ENGINES)
    assert {"skip", "overwrite"} <= set(EXISTING)
    words = [word for names in suggest.COMMANDS.values() for word in names.split()]
    words += [word for names in suggest.ABSENT.values() for word in names.split()]
    assert len(words) == len(set(words))
    assert not commands & set(words)


@pytest.mark.parametrize(
    ("arguments", "error", "meant"),
    [
        ("blur --sigma 2,5", "'--sigma': must be a number, not '2,5'", "2.5"),
        ("box --radius 3px", "'--radius': must be a number, not '3px'", "3"),
        ("blur --border-value 0,5", "'--border-value': must be a number, not '0,5'", "0.5"),
        ("blur --quality best", "must be a whole number from 1 to 100, not 'best'", None),
        ("blur --quality 101", "must be a whole number from 1 to 100, not '101'", None),
        ("blur --sigma wide", "'--sigma': must be a number, not 'wide'", None),
        ("blur --sigma 0", "'--sigma': must be > 0 and <= 1365, not 0", None),
        ("bench --gpu -1", "must be a whole number from 0, not '-1'", None),
    ],
)
def test_a_wrong_number_is_told_in_words(arguments: str, error: str, meant: str | None) -> None:
    words = [*arguments.split(), *(["a", "b"] * (not arguments.startswith("bench")))]
    result = CliRunner().invoke(app, words, prog_name="cudafilter")
    assert error in result.stderr
    assert hint_of(*words) == (f"did you mean {meant}?" if meant else None)
