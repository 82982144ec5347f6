"""Where files are kept: each module writes a file whole or not at all."""
