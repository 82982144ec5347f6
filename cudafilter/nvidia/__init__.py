"""What is NVIDIA's and no kernel: the toolkit, nvJPEG, PyCUDA's installation."""
