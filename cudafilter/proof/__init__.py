"""Values of the reference, found fast, with a proven bound on how far they may be off."""
