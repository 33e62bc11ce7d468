"""Changes to another package's modules, each of which is undone when its ExitStack is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from typing import Any

from rocforge_ops.integrations import versions

_ABSENT: Any = object()


def set_attribute(undo: ExitStack, owner: Any, name: str, value: Any) -> None:
    """owner.name = value, until undo is closed; what someone else has set since then stays."""
    before = getattr(owner, name)
    setattr(owner, name, value)

    def restore() -> None:
        if getattr(owner, name) is value:
            setattr(owner, name, before)

    undo.callback(restore)


def set_item(undo: ExitStack, mapping: MutableMapping[Any, Any], key: Any, value: Any) -> None:
    """mapping[key] = value, until undo is closed; what someone else has set since then stays."""
    before = mapping.get(key, _ABSENT)
    mapping[key] = value

    def restore() -> None:
        if mapping.get(key) is not value:
            return
        if before is _ABSENT:
            del mapping[key]
        else:
            mapping[key] = before

    undo.callback(restore)


def append(undo: ExitStack, values: list[Any], value: Any) -> None:
    """values.append(value), until undo is closed."""
    values.append(value)
    undo.callback(values.remove, value)


class Plug:
    """What enable() and disable() of a host package do: once, under a lock, and all or nothing.

    Args:
        package: the host; its version is checked first.
        install: makes the changes, each with the way back on the ExitStack it is given.
    """

    def __init__(self, package: str, install: Callable[[ExitStack], None]) -> None:
        self._package, self._install = package, install
        self._lock = threading.Lock()
        self._undo: ExitStack | None = None

    def enable(self) -> None:
        with self._lock:
            if self._undo is not None:
                return
            versions.require(self._package)
            with ExitStack() as undo:  # an error on the way takes back what was done before it
                self._install(undo)
                self._undo = undo.pop_all()

    def disable(self) -> None:
        with self._lock:
            if self._undo is not None:
                self._undo.close()
                self._undo = None
