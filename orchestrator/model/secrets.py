"""Secrets in parameters: markers from when a launch is decided on until just before it is made. Pure.

A decision is saved; a secret is not. So `${secret.NAME}` becomes a SecretText in a launch's parameters, which the shell
replaces by the text when it launches, in memory only.
"""

from collections.abc import Callable, Collection

import msgspec

from orchestrator.model.commands import Json

MASK = "***"
"""What stands in an error in place of a secret's value."""

MIN_MASKED = 8
"""Values of fewer characters are not looked for in texts: they would be found where they are not meant."""


class SecretName(msgspec.Struct, frozen=True):
    """One secret, by its name."""

    name: str


class SecretText(msgspec.Struct, frozen=True):
    """A text that holds secrets: what is known of it, and names for the rest."""

    parts: tuple[str | SecretName, ...]

    def filled(self, value_of: Callable[[str], str]) -> str:
        """Return the text."""
        return "".join(part if isinstance(part, str) else value_of(part.name) for part in self.parts)


def filled(value: object, value_of: Callable[[str], str]) -> Json:
    """Return a value with its marks replaced; parts without any are shared."""
    match value:
        case SecretText():
            return value.filled(value_of)
        case dict():
            return {key: filled(member, value_of) for key, member in value.items()}
        case list():
            return [filled(item, value_of) for item in value]
        case _:
            return value


def masked(text: str, values: Collection[str]) -> str:
    """Return a text without the values of secrets that are long enough to be told from other text."""
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= MIN_MASKED:
            text = text.replace(value, MASK)
    return text


def masked_json(value: Json, values: Collection[str]) -> Json:
    """Return a JSON value, all of its texts masked."""
    match value:
        case str():
            return masked(value, values)
        case dict():
            return {key: masked_json(member, values) for key, member in value.items()}
        case list():
            return [masked_json(item, values) for item in value]
        case _:
            return value
