"""How fast the engine is, beside the floor that the disk sets; run by `make bench`."""
