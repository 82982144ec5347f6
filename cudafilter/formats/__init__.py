"""File formats: each module reads and writes one, losing nothing without a word.

A reader takes the file's bytes and gives a Decoded; a writer takes pixels and the metadata that
the format holds (see metadata.split). Reasons are raised as ImageError without the file's name,
which images.py puts before them.
"""
