"""``python -m cudafilter``."""

from cudafilter.cli import main

if __name__ == "__main__":
    main()
