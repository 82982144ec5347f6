"""``python -m cudafilter.install_cuda``: PyCUDA, and a compiler where there is none."""

import sys

from cudafilter.nvidia.install import main

if __name__ == "__main__":
    sys.exit(main())
