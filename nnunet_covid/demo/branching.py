"""Branching tubes of the lungs, vessels and airways: how they grow and how they look in a slice.

A tree grows as a spanning tree that balances total length against the way from the root (Cuntz et al., PLoS
Computational Biology 2010); the radii follow Murray's law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_covid.demo.fields import Array
from nnunet_covid.demo.geometry import coverage

BALANCE = 0.35
"""Weight of the way from the root against the length of the new piece."""
MURRAY = 2.45


@dataclass(frozen=True)
class Tubes:
    """Straight pieces of tube.

    Attributes:
        start, end: (n, 3), mm.
        radius: (n,), mm.
    """

    start: Array
    end: Array
    radius: Array

    def thicker_than(self, radius: float) -> Tubes:
        """Only the pieces of at least this radius, mm."""
        keep = self.radius >= radius
        return Tubes(self.start[keep], self.end[keep], self.radius[keep])

    def share(self, x: Array, y: Array, z: float, scale: float = 1.0, extra: float = 0.0) -> Array:
        """How much of every pixel of the slice at height z the tubes cover, 0 to 1.

        Args:
            x: Columns' positions, (w,), mm, evenly spaced.
            y: Rows' positions, (h,), mm, as evenly.
            z: Height of the slice, mm.
            scale: Factor on all radii.
            extra: Added to all radii, mm.
        """
        pixel = float(x[1] - x[0])
        share = np.zeros((len(y), len(x)))
        reach = self.radius * scale + extra + 1.5 * pixel
        low, high = np.sort(np.stack([self.start, self.end]), axis=0)
        near = (low[:, 2] - reach < z) & (high[:, 2] + reach > z)
        for i in np.flatnonzero(near):
            c0, c1 = np.searchsorted(x, [low[i, 0] - reach[i], high[i, 0] + reach[i]])
            r0, r1 = np.searchsorted(y, [low[i, 1] - reach[i], high[i, 1] + reach[i]])
            if c0 == c1 or r0 == r1:
                continue
            gap = _distance(x[None, c0:c1], y[r0:r1, None], z, self.start[i], self.end[i])
            radius = self.radius[i] * scale + extra
            thin = min(1.0, radius / (0.45 * pixel))  # a thread thinner than a pixel fills only part of it
            piece = thin * coverage(gap - max(radius, 0.45 * pixel), 0.5 * pixel)
            np.maximum(share[r0:r1, c0:c1], piece, out=share[r0:r1, c0:c1])
        return share


def _distance(x: Array, y: Array, z: float, start: Array, end: Array) -> Array:
    direction = end - start
    along = (x - start[0]) * direction[0] + (y - start[1]) * direction[1] + (z - start[2]) * direction[2]
    t = np.clip(along / max(float(direction @ direction), 1e-9), 0.0, 1.0)
    return np.sqrt(
        (start[0] + t * direction[0] - x) ** 2
        + (start[1] + t * direction[1] - y) ** 2
        + (start[2] + t * direction[2] - z) ** 2
    )


def grow(root: Array, targets: Array, tip_radius: float) -> Tubes:
    """A tree from the root to every target.

    Args:
        root: (3,), mm.
        targets: (n, 3), mm.
        tip_radius: Radius of the last piece of every branch, mm.
    """
    nodes = np.concatenate([root[None], targets])
    parent = np.zeros(len(nodes), dtype=np.intp)
    way = np.zeros(len(nodes))
    length = np.linalg.norm(nodes - root, axis=1)
    cost = length * 1.0
    cost[0] = np.inf
    order = [0]
    for _ in range(len(targets)):
        new = int(np.argmin(cost))
        way[new] = way[parent[new]] + length[new]
        order.append(new)
        cost[new] = np.inf
        gap = nodes - nodes[new]
        distance = np.sqrt(np.einsum("ij,ij->i", gap, gap))
        offer = distance + BALANCE * way[new]
        better = (offer < cost) & np.isfinite(cost)
        cost[better], parent[better], length[better] = offer[better], new, distance[better]
    carried = np.zeros(len(nodes))
    children = np.zeros(len(nodes))
    middle = np.zeros_like(nodes)
    for node in reversed(order[1:]):
        if children[node] == 0:
            carried[node] = tip_radius**MURRAY
        carried[parent[node]] += carried[node]
        children[parent[node]] += 1
        middle[parent[node]] += nodes[node]
    inner = children > 0
    inner[0] = False
    smooth = nodes.copy()  # branches bend instead of kinking
    smooth[inner] = 0.5 * nodes[inner] + 0.2 * nodes[parent[inner]] + 0.3 * middle[inner] / children[inner, None]
    tips = order[1:]
    return Tubes(smooth[parent[tips]], smooth[tips], carried[tips] ** (1.0 / MURRAY))


def join(*parts: Tubes) -> Tubes:
    """All pieces together."""
    return Tubes(
        np.concatenate([p.start for p in parts]),
        np.concatenate([p.end for p in parts]),
        np.concatenate([p.radius for p in parts]),
    )
