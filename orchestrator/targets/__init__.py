"""Adapters of the Target port, one file each."""
