"""``python -m cudafilter.install_cuda``: PyCUDA, NVRTC and nvJPEG."""

import sys

from cudafilter.nvidia.install import main

if __name__ == "__main__":
    sys.exit(main())
