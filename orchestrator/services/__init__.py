"""Clients of the services that several adapters use; built when they are first called."""
