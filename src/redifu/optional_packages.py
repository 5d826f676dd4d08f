"""Import optional packages on first use."""

from importlib import import_module
from typing import Any


def optional_package(module: str, *, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: the full module name.
        extra: the redifu extra that installs it.

    Raises:
        ImportError: the module is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        # Use the name in the error, because a dependency of the package may be missing instead.
        missing = error.name or module
        raise ImportError(
            f"{missing} is not installed: pip install 'redifu[{extra}]'", name=missing
        ) from None
