"""Objects from ``_target_`` nodes."""

from __future__ import annotations

import re
from typing import Any

from gan_cli.config.plain import Node
from gan_cli.config.schema import IMPORT_ADVICE
from gan_cli.system.errors import ConfigError, GanError


def build(node: Node, where: str, **injected: Any) -> Any:
    """Build the object of a ``_target_`` node.

    Args:
        where: key of the node, for messages. injected: arguments that the program adds.

    Raises:
        ConfigError: the constructor refuses the arguments.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        # Hydra would resolve a text with ${...} in it a second time.
        scalars = {k: v for k, v in node.items() if k != "_target_" and not isinstance(v, dict | list)}
        others = {k: v for k, v in node.items() if k not in scalars}
        return instantiate(others, _partial_=True, _convert_="all")(**scalars, **injected)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, GanError):
            raise cause from error
        target = re.search(r"'([\w.]+)'", str(error))  # the inner node that failed
        inner = re.search(r"full_key: (\S+)", str(error))
        where = f"{where}.{inner[1]}" if inner else where
        raise _cannot_build(target[1] if target else node["_target_"], where, cause) from error
    except (TypeError, ValueError) as error:
        raise _cannot_build(node["_target_"], where, error) from error


def _cannot_build(target: str, where: str, cause: BaseException) -> ConfigError:
    if str(cause).startswith("Error loading") or isinstance(cause, ImportError):
        return ConfigError(f"{target} cannot be imported", where, IMPORT_ADVICE)
    reason = str(cause).split("\n")[0].rstrip(".")
    return ConfigError(f"{target} cannot be built: {reason}", where, "Correct its arguments")
