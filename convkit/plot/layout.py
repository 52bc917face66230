"""Where the boxes and lines of a graph go: one lane for its longest path, more beside it.

The longest path stands in a column of its own. Other paths stand in lanes to its right, each row by
row beside what it runs parallel to; edges that pass over boxes run in narrow lanes to the left of
the lane they begin or end in. So no line crosses a box, whatever the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Edge:
    """A line from a box to another.

    Attributes:
        source, target: numbers of boxes.
        way: "down": straight, in one lane; "right": out of the source's right side, down the
            target's lane or the source's, into the target; "left": round the boxes between.
        track: of a "left" one, its narrow lane, counted from the boxes outwards.
        lane: in which lane, or to the left of which.
    """

    source: int
    target: int
    way: str = "left"
    track: int = 0
    lane: int = 0


@dataclass
class Layout:
    """Rows and lanes of boxes, and the way of each edge."""

    rows: list[int]
    lanes: list[int]
    edges: list[Edge]
    tracks: dict[int, int] = field(default_factory=dict)  # narrow lanes to the left of each lane

    def cuts(self) -> list[int]:
        """Rows after which nothing but one straight line goes on."""
        found = []
        for row in range(max(self.rows)):
            passing = [e for e in self.edges if self.rows[e.source] <= row < self.rows[e.target]]
            if len(passing) == 1 and passing[0].way == "down" and passing[0].lane == 0:
                found.append(row)
        return found


def arrange(count: int, pairs: Sequence[tuple[int, int]]) -> Layout:
    """Rows, lanes and ways.

    Args:
        count: how many boxes; their numbers are in an order in which all edges go up.
        pairs: (source, target) of each edge.
    """
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in pairs:
        before[target].append(source)
        after[source].append(target)
    rows = [0] * count
    for node in range(count):
        rows[node] = max((rows[s] + 1 for s in before[node]), default=0)
    chains = _chains(count, before, rows)
    _lower_inputs(chains, before, after, rows)

    lanes = [0] * count
    placed: list[_Beside] = []
    beside = [_Beside.of(chain, before, after, rows) for chain in chains[1:]]
    for one in sorted(beside, key=lambda one: (one.end, one.end - one.begin)):
        while any(one.meets(other) for other in placed):
            one.lane += 1
        placed.append(one)
        for node in one.chain:
            lanes[node] = one.lane
    following = {pair for chain in chains for pair in pairwise(chain)}
    heads = {chain[0] for chain in chains[1:]}
    tails = {chain[-1] for chain in chains[1:]}
    edges = [_way(Edge(*pair), lanes, rows, following, heads, tails) for pair in pairs]
    layout = Layout(rows, lanes, edges)
    _assign_tracks(layout)
    return layout


@dataclass
class _Beside:
    """A path beside the longest one.

    Attributes:
        begin, end: rows of what it comes from and of what it goes to.
        rows: of its boxes.
    """

    chain: list[int]
    begin: int
    end: int
    rows: set[int]
    lane: int = 1

    @staticmethod
    def of(
        chain: list[int], before: list[list[int]], after: list[list[int]], rows: list[int]
    ) -> _Beside:
        return _Beside(
            chain,
            min((rows[s] for s in before[chain[0]]), default=rows[chain[0]] - 1),
            max((rows[t] for t in after[chain[-1]]), default=rows[chain[-1]] + 1),
            {rows[node] for node in chain},
        )

    def meets(self, other: _Beside) -> bool:
        """Whether it is in the other's way, or boxes of its are in the way of the other's lines."""
        if self.lane == other.lane:
            return other.begin < self.end and self.begin < other.end
        return self.lane < other.lane and bool({other.begin, other.end} & self.rows)


def _chains(count: int, before: list[list[int]], rows: list[int]) -> list[list[int]]:
    """Paths that hold every box once, the longest first."""
    left = set(range(count))
    chains = []
    while left:
        length: dict[int, int] = {}
        came: dict[int, int | None] = {}
        for node in sorted(left):
            best = max(
                (s for s in before[node] if s in left), key=lambda s: length[s], default=None
            )
            came[node] = best
            length[node] = 1 if best is None else length[best] + 1
        at: int | None = max(length, key=lambda node: (length[node], node))
        chain: list[int] = []
        while at is not None:
            chain.append(at)
            at = came[at]
        chain.reverse()
        left.difference_update(chain)
        chains.append(chain)
    return chains


def _lower_inputs(
    chains: list[list[int]], before: list[list[int]], after: list[list[int]], rows: list[int]
) -> None:
    """Moves paths that begin with an input down to where they are used."""
    for chain in chains[1:]:
        if before[chain[0]] or any(len(after[node]) > 1 for node in chain):
            continue
        if all(set(before[node]) <= set(chain) for node in chain) and after[chain[-1]]:
            end = rows[after[chain[-1]][0]]
            for i, node in enumerate(reversed(chain)):
                rows[node] = end - 1 - i


def _way(
    edge: Edge,
    lanes: list[int],
    rows: list[int],
    following: set[tuple[int, int]],
    heads: set[int],
    tails: set[int],
) -> Edge:
    source, target = edge.source, edge.target
    if (source, target) in following:
        edge.way, edge.lane = "down", lanes[source]
    elif target in heads and lanes[target] > lanes[source]:
        edge.way, edge.lane = "right", lanes[target]
    elif source in tails and lanes[source] > lanes[target]:
        edge.way, edge.lane = "right", lanes[source]
    else:
        edge.way, edge.lane = "left", min(lanes[source], lanes[target])
    return edge


def _assign_tracks(layout: Layout) -> None:
    """Short edges next to the boxes, long ones outside them."""
    taken: dict[int, list[tuple[int, int, int]]] = {}
    around = [edge for edge in layout.edges if edge.way == "left"]

    def span(edge: Edge) -> tuple[int, int]:
        return layout.rows[edge.source], layout.rows[edge.target]

    for edge in sorted(around, key=lambda e: (span(e)[1] - span(e)[0], span(e))):
        begin, end = span(edge)
        used = taken.setdefault(edge.lane, [])
        track = 0
        while any(t == track and b <= end and begin <= e for t, b, e in used):
            track += 1
        used.append((track, begin, end))
        edge.track = track
    layout.tracks = {lane: 1 + max(t for t, _, _ in used) for lane, used in taken.items()}
