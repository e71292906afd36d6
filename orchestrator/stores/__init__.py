"""Adapters of the ObjectStore port, one file each."""
