"""The CUDA engine: a device, the kernels that run on it, and JPEG on it."""
