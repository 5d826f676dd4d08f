"""Imports of optional packages, when they are needed."""

from importlib import import_module
from typing import Any


def optional_package(module: str, *, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: full name of the module.
        extra: the extra of this package that installs it.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        # Name the module from the error, because a dependency of the requested package may be missing.
        missing = error.name or module
        raise ImportError(
            f"{missing} is not installed: pip install 'redifu[{extra}]'", name=missing
        ) from None
