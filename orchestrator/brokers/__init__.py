"""Adapters of the Broker port, one file each."""
