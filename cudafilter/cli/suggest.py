"""What a word that is no command, option or value was likely meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

COMMANDS = {
    "blur": "gaussian gauss smooth soften gblur gaussianfilter blurxy",
    "box": "mean average avgblur boxfilter uniform blockblur uniformfilter sqrboxfilter meanblur",
    "sharpen": "sharp crisp cas adaptivesharpen",
    "unsharp": "usm unsharpmask unsharpgoldenratio",
    "sobel": "edges edge gradient contour edgedetect findedges gradientmagnitude gradientnorm",
    "scharr": "scharrh scharrv",
    "prewitt": "prewitth prewittv",
    "laplacian": "laplace edgeenhance",
    "canny": "cannyedge thinedges",
    "emboss": "relief bump shade",
    "motion": "motionblur directional linear blurlinear",
    "disk": "disc lens lensblur defocus bokeh pillbox blurbokeh",
    "highpass": "hpf detail",
    "dog": "differenceofgaussians differenceofgaussian blobdog",
    "log": "laplacianofgaussian gaussianlaplace marrhildreth bloblog",
    "gabor": "gaborfilter gaborkernel getgaborkernel",
    "median": "medfilt medianblur medianfilter despeckle rank statistic",
    "percentile": "quantile rankfilter percentilefilter rankorder",
    "erode": "erosion minimum min morphology minimumfilter greyerosion",
    "dilate": "dilation maximum max maximumfilter greydilation",
    "open": "opening morphologyex",
    "close": "closing greyclosing",
    "tophat": "whitetophat",
    "blackhat": "blacktophat bothat bottomhat",
    "outline": "morphologicalgradient",
    "invert": "negate negative bitwisenot",
    "levels": "level gamma brightness contrast curves adjustgamma rescaleintensity",
    "threshold": "binarize binarise otsu thresholdotsu autothreshold cut",
    "kernel": "convolve convolution conv conv2d conv2 correlate filter2d custom matrix sepfilter2d",
    "denoise": "nlmeans fastnlmeansdenoising denoisenlmeans",
    "bilateral": "bilateralfilter bilateralblur denoisebilateral selectiveblur",
    "chain": "pipeline pipe sequence recipe combine",
    "filters": "list ls catalogue catalog",
    "info": "devices gpus gpu about status",
    "doctor": "diagnose selftest check-install",
    "preview": "contactsheet sheet gallery compare montage show display",
    "completion": "complete shellcompletion autocomplete",
    "bench": "benchmark time timing",
    "compile": "build warm warmup cache",
}
"""Command -> what other programs and people call it."""

ABSENT = {
    "no command changes colours; the option --gray turns an image gray first": (
        "gray grey grayscale greyscale monochrome equalize"
    ),
    "no command resizes, turns or crops": "resize scale thumbnail crop rotate flip flop transpose",
    "name the filter first: cudafilter FILTER SRC... DEST": "filter apply run convert",
}
"""Hint -> words for what cudafilter does not have under that name."""

OPTIONS = {
    "--sigma": "--std --stddev --strength --sd",
    "--length": "--distance --len",
    "--angle": "--theta --direction --orientation",
    "--wavelength": "--lambda --lambd --period",
    "--aspect": "--gamma",
    "--phase": "--psi --offset",
    "--radius": "--size --ksize --kernel-size --window",
    "--weights": "--kernel --matrix --coefficients",
    "--amount": "--percent --gain --strength",
    "--jobs": "--threads --parallel --cores",
    "--processes": "--workers --procs",
    "--gpu": "--device --cuda-device --gpus",
    "--engine": "--backend --cpu --cuda",
    "--border": "--padding --pad --mode --edge --boundary --border-mode --bordertype",
    "--border-value": "--cval --fill --pad-value --fill-value",
    "--gray": "--grey --grayscale --greyscale --mono --monochrome",
    "--linear": "--linear-light --linearize --gamma-correct",
    "--background": "--bg --flatten --matte",
    "--region": "--roi --rect --rectangle --crop --bbox",
    "--feather": "--soft-edge --falloff",
    "--retry-failed": "--retry --resume --only-failed",
    "--shard": "--share --part --partition --split",
    "--existing": "--overwrite --skip --skip-existing --force --clobber --no-clobber --update",
    "--format": "--ext --extension --type --output-format",
    "--in-place": "--inplace --replace -i",
    "--recursive": "-R --recurse",
    "--report": "--log --json",
    "--check": "--verify --validate --proof",
    "--compress-level": "--compression --level",
    "--dry-run": "-n --simulate --pretend",
    "--normalize": "--normalise --norm",
}
"""Option -> what other programs call it."""

VALUES = {
    "edge": "replicate nearest clamp extend repeat",
    "reflect": "mirror reflect101 reflect_101 border_reflect_101",
    "wrap": "circular periodic tile",
    "constant": "zero zeros black fill",
    "cuda": "gpu nvidia",
    "cpu": "opencv host pillow",
    "skip": "keep no",
    "quick": "fast sample random",
    "overwrite": "replace yes force",
}
"""Value of an option -> what other programs call it."""


def command(word: str, known: Iterable[str]) -> str | None:
    """The hint for *word*, which is none of the commands *known*; None without a guess."""
    plain = _plain(word)
    if plain in ("help", "version"):
        return f"cudafilter --{plain}"
    for hint, words in ABSENT.items():
        if plain in words.split():
            return hint
    return _did_you_mean(_close(plain, known, COMMANDS))


def value(word: str, known: Iterable[str]) -> str | None:
    """The hint for *word*, which is none of the values *known*; None without a guess."""
    return _did_you_mean(_close(_plain(word), known, COMMANDS | VALUES))


def number(word: object) -> str | None:
    """The hint for *word*, which is no number: 2,5 or 3px; None without a guess."""
    found = re.fullmatch(r"\s*([+-]?\d*[.,]?\d+)\s*(?:px|pixels?|x)?\s*", str(word))
    if found is None or (found[1] == str(word).strip() and "," not in found[1]):
        return None
    return f"did you mean {found[1].replace(',', '.')}?"


def option(word: str, known: Iterable[str]) -> str | None:
    """The hint for *word*, which is none of the options *known*, by what other programs call them.

    Click itself names options that are spelled nearly alike.
    """
    if word in ("-o", "--output", "--out", "--dest"):
        return "the output is the last word: cudafilter FILTER SRC... DEST"
    return _did_you_mean([name for name in known if word in OPTIONS.get(name, "").split()])


_LIBRARY = r"(?:(?:cv2?|skimage|scipy|ndimage|pil|imagefilter|filters|feature|morphology|fx)[._])*"
"""What names of other programs begin with: cv2.GaussianBlur, fx_unsharp of G'MIC."""


def _plain(word: str) -> str:
    """*word* as the tables have it: -gaussian-blur and cv2.GaussianBlur are gaussianblur."""
    word = re.sub(_LIBRARY, "", word.casefold().lstrip("-"), count=1)
    return word.replace("-", "").replace("_", "").replace(" ", "")


def _close(plain: str, known: Iterable[str], tables: dict[str, str]) -> list[str]:
    """Which of *known* are likely meant, the likeliest first."""
    meant = {_plain(name): name for name in known}
    for name in list(meant.values()):
        meant |= dict.fromkeys(tables.get(name, "").split(), name)
    if plain in meant:
        return [meant[plain]]
    words = get_close_matches(plain, meant, n=3, cutoff=0.7)
    if not words and len(plain) > 3:
        # GaussianBlur, SobelFilter, boxblur: a name with more around it.
        words = [word for word in meant if len(word) > 2 and plain.startswith(word)]
    return list(dict.fromkeys(meant[word] for word in words))


def _did_you_mean(names: list[str]) -> str | None:
    return f"did you mean {' or '.join(names)}?" if names else None
