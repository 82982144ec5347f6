"""Where files are: found, read, and written whole or not at all."""
