"""Control flow of a kernel: basic blocks, loops, and the path that a wave takes in the common case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from amd_code.instructions import Counts

LABEL = re.compile(r"<(L\d+)>:")
ENDS = ("s_endpgm", "s_trap")


@dataclass
class Block:
    mnemonics: list[str] = field(default_factory=list)
    next: list[int] = field(default_factory=list)  # positions of the blocks that may follow


def blocks(lines: Iterable[str]) -> list[Block]:
    """Basic blocks of one function as llvm-objdump --symbolize-operands prints it; the first one is the entry."""
    found, targets, labels = [Block()], [[]], {}

    def begin(falls_through: bool) -> None:
        if falls_through:
            targets[-1].append(len(found))
        found.append(Block())
        targets.append([])

    reachable = True  # from the line before
    for line in lines:
        if match := LABEL.match(line):
            begin(reachable)
            labels[match[1]], reachable = len(found) - 1, True
            continue
        name, _, operands = line.partition("//")[0].strip().partition(" ")
        if not name:
            continue
        if name in ("s_setpc_b64", "s_swappc_b64"):
            raise ValueError(f"{name}: a kernel that calls functions cannot be followed")
        found[-1].mnemonics.append(name)
        branch = name == "s_branch" or name.startswith("s_cbranch_")
        if branch:
            targets[-1].append(operands.strip())
        if branch or name in ENDS:
            begin(name.startswith("s_cbranch_"))
            reachable = name.startswith("s_cbranch_")
    for block, names in zip(found, targets, strict=True):
        block.next = [labels[name] if isinstance(name, str) else name for name in names]
    return found


def loops(graph: Sequence[Block], nodes: set[int] | None = None) -> list[tuple[int, set[int]]]:
    """All loops, inner ones too: (position of the header, positions of its blocks). `nodes`: look at these only."""
    nodes = reachable(graph) if nodes is None else nodes
    found = []
    for component in components(graph, nodes):
        entered = {n for i, block in enumerate(graph) if i not in component for n in block.next if n in component}
        header = min(entered or component)
        if len(component) > 1 or header in graph[header].next:
            found.append((header, component))
            found += loops(graph, component - {header})
    return found


def reachable(graph: Sequence[Block]) -> set[int]:
    seen, stack = set(), [0]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += graph[node].next
    return seen


def components(graph: Sequence[Block], nodes: set[int]) -> list[set[int]]:
    """Strongly connected components of the graph restricted to `nodes` (two passes, S. R. Kosaraju)."""
    order, seen = [], set()
    for root in sorted(nodes):
        stack = [(root, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(n, False) for n in graph[node].next if n in nodes]
    before: dict[int, list[int]] = {node: [] for node in nodes}
    for node in nodes:
        for n in graph[node].next:
            if n in nodes:
                before[n].append(node)
    found, seen = [], set()
    for root in reversed(order):
        component, stack = set(), [root]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                component.add(node)
                stack += before[node]
        if component:
            found.append(component)
    return found


def best_path(
    graph: Sequence[Block],
    entry: int,
    nodes: set[int],
    counts: Sequence[Counts],
    rank: Callable[[Counts], tuple[float, ...]],
) -> Counts:
    """The instructions on the path of greatest rank from `entry` through `nodes`, each loop passed at most once.

    `rank` adds up along a path, as its components are sums over the path's instructions.
    """
    best: dict[int, Counts] = {}
    open_nodes, stack = set(), [(entry, False)]
    while stack:
        node, done = stack.pop()
        if done:
            open_nodes.discard(node)
            after = [best[n] for n in graph[node].next if n in best and n not in open_nodes]
            best[node] = counts[node] + max(after, key=rank, default=Counts())
        elif node not in best and node not in open_nodes:
            open_nodes.add(node)
            stack.append((node, True))
            stack += [(n, False) for n in graph[node].next if n in nodes and n not in open_nodes and n not in best]
    return best[entry]
