"""The front doors: they drop the same files into the folder as everybody else, and read the same files."""
