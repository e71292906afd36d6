"""Fixed: the base of views that cannot be changed. Pure."""


class Fixed:
    """An object whose attributes are set once, by `__init__`; what its class defines is never set."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__ or hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__}.{name}: is set once, when it is built; build another")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name}: is set once, when it is built; build another")
