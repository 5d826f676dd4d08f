"""Packages that only some users need, loaded when they are needed."""

from importlib import import_module
from typing import Any


def optional_package(module: str, *, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its full name.
        extra: the extra of this package that installs it.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        # By the error and not the name asked for: what is missing may be what that package needs.
        missing = error.name or module
        raise ImportError(
            f"{missing} is not installed: pip install 'redifu[{extra}]'", name=missing
        ) from None
