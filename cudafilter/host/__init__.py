"""The machine and the terminal that a process finds: cores, memory, text that is safe to show."""
