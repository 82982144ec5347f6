"""What a process finds: cores, memory, and a terminal that text must not steer."""
