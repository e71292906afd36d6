"""The command line, `python -m orchestrator`."""
