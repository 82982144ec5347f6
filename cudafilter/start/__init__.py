"""What may begin before the command line is parsed: a guess, which may be wrong without harm."""
