"""File formats: table.py lists them; each reads and writes, losing nothing without a word.

A reader takes the file's bytes and gives a Decoded; a writer takes pixels and the metadata that
the format holds (see metadata.split). Reasons are raised as ImageError without the file's name,
which images.py puts before them.
"""
