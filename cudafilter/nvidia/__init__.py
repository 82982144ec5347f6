"""NVIDIA's software beside our kernels: the toolkit, nvJPEG, and the installation of PyCUDA."""
