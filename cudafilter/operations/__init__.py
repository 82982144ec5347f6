"""What becomes of pixels, as plain data, and the reference that defines it."""
