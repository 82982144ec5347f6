"""Work that begins before the command line is parsed. It is a guess; a wrong one does no harm."""
