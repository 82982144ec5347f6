"""``python -m cudafilter.toolkit``: the CUDA toolkit found, or what is missing."""

import sys

from cudafilter.nvidia.toolkit import Toolkit, main

__all__ = ["Toolkit", "main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
