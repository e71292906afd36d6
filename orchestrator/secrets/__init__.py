"""Adapters of the port Secrets, a file each."""
