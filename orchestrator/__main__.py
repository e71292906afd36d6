"""python -m orchestrator"""

from orchestrator.cli.entry import entry

entry()
