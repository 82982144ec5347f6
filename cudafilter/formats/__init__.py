"""File formats: table.py lists them, rows.py opens and creates their files.

Each module reads and writes one, losing nothing without a word.
"""
