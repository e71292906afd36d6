"""Why a call is answered with an error before or after the function has run. They leave this package as
answers only, never as exceptions."""


class BadRequest(Exception):
    """The request is not one that the function can be called with; nothing was run."""


class NotJson(Exception):
    """The function returned something that JSON has no form for; says where in it."""
