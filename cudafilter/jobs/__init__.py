"""Many images: the plan, the threads that do it, and the records of what became of each."""
