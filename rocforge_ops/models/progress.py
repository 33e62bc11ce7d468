"""A progress bar for loads that take a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Item = TypeVar("Item", bound=Sized)


def progress(items: Iterable[Item]) -> Iterator[Item]:
    """Passes the items on and counts their bytes on stderr, after the first second and only on a terminal."""
    items = list(items)
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:  # comes with the hf extra; everything works without it
        yield from items
        return
    total = sum(item.nbytes for item in items)
    with tqdm(total=total, unit="B", unit_scale=True, desc="loading", delay=1, disable=None, leave=False) as bar:
        for item in items:
            yield item
            bar.update(item.nbytes)
