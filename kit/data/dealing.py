"""Deals groups of images to parts, so that each part gets its share of everything: of millions of groups in seconds.

Wanted is the least sum of squared differences between what a part has and its share of all, as in `kit.data.folds`.
There all traits of all groups are a table, which is exact for some hundred cameras; here a group lists only the traits
that it has, and a trait found in enough groups (a rare class) is in every part.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

FEW_GROUPS = 400  # for so many the search is repeated from several starts, and
RESTARTS = 8
ALL_PAIRS_GROUPS = 1500  # up to so many each pair is tried for a swap; with more each group tries
TRIES = 4  # random ones, and all of them no more than
MOST_PAIRS = 1_000_000  # in a sweep: of millions of groups the dealing leaves next to nothing
MOST_SWEEPS = 30
FEW_SWEEPS = 3  # where there are many groups, which leave little to be improved


@dataclass(frozen=True)
class Traits:
    """What each of G groups holds, row after row; rising within a row. The last trait is the images: all have it."""

    starts: np.ndarray  # (G + 1,) int64
    traits: np.ndarray  # (E,) int32
    values: np.ndarray  # (E,) float64, as shares of the whole
    is_kept: np.ndarray  # (T,) bool: wanted in every part, if there are enough groups that have it
    images: np.ndarray  # (G,) int64


def deal(traits: Traits, shares: np.ndarray, seed: int) -> np.ndarray:
    """The part of each group: shares (k,), sum 1 -> (G,) int64. No part is empty where there are k groups.

    Groups of one image each give every part its number of images exactly.
    """
    groups = len(traits.images)
    best, least = np.zeros(groups, np.int64), np.inf
    for restart in range(RESTARTS if groups <= FEW_GROUPS else 1):
        part, cost = dealt_once(traits, shares, np.random.default_rng([seed, restart]))
        if cost < least - 1e-12:
            best, least = part, cost
    return best


def dealt_once(traits: Traits, shares: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    groups, count, k = len(traits.images), len(traits.is_kept), len(shares)
    table = (traits.starts, traits.traits, traits.values)
    norms, totals, holders = sums(*table, count)
    is_kept = traits.is_kept & (holders >= k)
    is_even = bool((traits.images == 1).all())
    room = quotas(int(traits.images.sum()), shares).astype(np.float64)  # of images, in each part

    part, above = np.full(groups, -1), -shares[:, None] * totals  # (k, T)
    members, filled = np.zeros((k, count), np.int64), np.zeros(k)
    order = np.argsort(-np.sqrt(norms) * rng.uniform(0.8, 1.25, groups), kind="stable")
    owner_starts = np.concatenate([[0], np.cumsum(np.where(is_kept, holders, 0))])
    owners = owners_of_rare(*table[:2], is_kept, owner_starts, order[::-1].copy())
    rare_first = np.array([each for each in np.argsort(holders, kind="stable") if is_kept[each]], np.int64)
    by_share = np.argsort(shares, kind="stable")
    seed_parts(rare_first, by_share, owners, owner_starts, *table, traits.images, room, part, above, members, filled)
    deal_rest(order, *table, traits.images, room, is_even, part, above, members, filled)

    for _ in range(MOST_SWEEPS if groups <= ALL_PAIRS_GROUPS else FEW_SWEEPS):
        gain = 0.0 if is_even else move_each(*table, norms, is_kept, part, above, members)
        one, other = pairs(groups, rng)
        gain += swap_each(one, other, *table, norms, is_kept, part, above, members)
        if gain <= 1e-12:
            break
    return part, float((above**2).sum())


def quotas(count: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers nearest to the shares, of the sum `count`: (k,) -> (k,) int64. None is 0 if that can be."""
    exact = shares * count
    result = np.floor(exact).astype(np.int64)
    result[np.argsort(result - exact, kind="stable")[: count - result.sum()]] += 1
    while count >= len(shares) and (result == 0).any():
        result[result.argmax()] -= 1
        result[result.argmin()] += 1
    return result


def pairs(groups: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of groups to be tried for a swap, (n,) and (n,)."""
    if groups <= ALL_PAIRS_GROUPS:
        one, other = np.triu_indices(groups, 1)
        order = rng.permutation(len(one))
        return one[order], other[order]
    count = min(TRIES * groups, MOST_PAIRS)
    return rng.integers(0, groups, count), rng.integers(0, groups, count)


# --- the loops, compiled. Of each group: starts, traits, values as in Traits. Written: part (G,), above (k, T) what a
# part has above its share, members (k, T) groups of the part that have the trait, filled (k,) images of the part. ---


@njit(nogil=True, cache=True)
def sums(starts, traits, values, count):  # type: ignore[no-untyped-def]  # Numba finds the types
    """-> (G,) the squares of a group's values; (T,) the values of a trait; (T,) int64 how many groups have it."""
    norms, totals, holders = np.zeros(len(starts) - 1), np.zeros(count), np.zeros(count, np.int64)
    for group in range(len(norms)):
        for entry in range(starts[group], starts[group + 1]):
            norms[group] += values[entry] ** 2
            totals[traits[entry]] += values[entry]
            holders[traits[entry]] += 1
    return norms, totals, holders


@njit(nogil=True, cache=True)
def owners_of_rare(starts, traits, is_kept, owner_starts, order):  # type: ignore[no-untyped-def]
    """The groups that have each kept trait, in the order given (G,) -> int32; owner_starts: (T + 1,) where those of a
    trait begin."""
    owners, end = np.empty(owner_starts[-1], np.int32), owner_starts.copy()
    for group in order:
        for entry in range(starts[group], starts[group + 1]):
            trait = traits[entry]
            if is_kept[trait]:
                owners[end[trait]] = group
                end[trait] += 1
    return owners


@njit(nogil=True, cache=True)
def place(group, target, starts, traits, values, images, part, above, members, filled):  # type: ignore[no-untyped-def]
    part[group] = target
    filled[target] += images[group]
    for entry in range(starts[group], starts[group + 1]):
        above[target, traits[entry]] += values[entry]
        members[target, traits[entry]] += 1


@njit(nogil=True, cache=True)
def seed_parts(  # type: ignore[no-untyped-def]  # Numba finds the types
    rare_first, by_share, owners, owner_starts, starts, traits, values, images, room, part, above, members, filled
):
    """Puts one group with each trait into each part that has none yet, as far as the part has room."""
    left, empty = len(part), len(room)
    for trait in rare_first:
        for target in by_share:
            if members[target, trait] > 0 or (filled[target] > 0 and filled[target] >= room[target]):
                continue
            for position in range(owner_starts[trait], owner_starts[trait + 1]):
                group = owners[position]
                is_first = filled[target] == 0
                fits = is_first or (filled[target] + images[group] <= room[target] and left > empty)
                if part[group] < 0 and fits:
                    place(group, target, starts, traits, values, images, part, above, members, filled)
                    left -= 1
                    empty -= is_first
                    break


@njit(nogil=True, cache=True)
def deal_rest(order, starts, traits, values, images, room, is_even, part, above, members, filled):  # type: ignore[no-untyped-def]
    """Large groups first, each to the part that lacks its content most; is_even: no part gets more than its room."""
    for group in order:
        if part[group] >= 0:
            continue
        target, least = -1, np.inf
        for candidate in range(len(room)):
            if is_even and filled[candidate] >= room[candidate]:
                continue
            pull = 0.0
            for entry in range(starts[group], starts[group + 1]):
                pull += above[candidate, traits[entry]] * values[entry]
            if pull < least:
                target, least = candidate, pull
        place(group, target, starts, traits, values, images, part, above, members, filled)


@njit(nogil=True, cache=True)
def would_lack(group, other, source, starts, traits, is_kept, members):  # type: ignore[no-untyped-def]
    """Whether `source` loses its last group with some trait if it gives `group` away for `other` (-1: for nothing)."""
    for entry in range(starts[group], starts[group + 1]):
        trait = traits[entry]
        if is_kept[trait] and members[source, trait] == 1:
            found = False
            if other >= 0:
                for entry_of_other in range(starts[other], starts[other + 1]):
                    found = found or traits[entry_of_other] == trait
            if not found:
                return True
    return False


@njit(nogil=True, cache=True)
def shift(group, source, target, starts, traits, values, part, above, members):  # type: ignore[no-untyped-def]
    part[group] = target
    for entry in range(starts[group], starts[group + 1]):
        trait = traits[entry]
        above[source, trait] -= values[entry]
        above[target, trait] += values[entry]
        members[source, trait] -= 1
        members[target, trait] += 1


@njit(nogil=True, cache=True)
def move_each(starts, traits, values, norms, is_kept, part, above, members):  # type: ignore[no-untyped-def]
    """Each group once to the part where it lowers the cost most -> by how much the cost has become lower."""
    gain = 0.0
    for group in range(len(part)):
        source, target, least = part[group], -1, -1e-13
        for candidate in range(len(above)):
            if candidate == source:
                continue
            change = norms[group]
            for entry in range(starts[group], starts[group + 1]):
                change += (above[candidate, traits[entry]] - above[source, traits[entry]]) * values[entry]
            if change < least:
                target, least = candidate, change
        if target >= 0 and not would_lack(group, -1, source, starts, traits, is_kept, members):
            shift(group, source, target, starts, traits, values, part, above, members)
            gain -= 2 * least
    return gain


@njit(nogil=True, cache=True)
def swap_each(one, other, starts, traits, values, norms, is_kept, part, above, members):  # type: ignore[no-untyped-def]
    """Swaps the pairs of groups that lower the cost by changing places -> by how much it has become lower."""
    gain = 0.0
    for pair in range(len(one)):
        a, b = one[pair], other[pair]
        p, q = part[a], part[b]
        if p == q:
            continue
        change, product = norms[a] + norms[b], 0.0
        for entry in range(starts[a], starts[a + 1]):
            change += (above[q, traits[entry]] - above[p, traits[entry]]) * values[entry]
        for entry in range(starts[b], starts[b + 1]):
            change += (above[p, traits[entry]] - above[q, traits[entry]]) * values[entry]
        i, j = starts[a], starts[b]
        while i < starts[a + 1] and j < starts[b + 1]:
            if traits[i] == traits[j]:
                product += values[i] * values[j]
            if traits[i] <= traits[j]:
                i += 1
            else:
                j += 1
        change -= 2 * product
        if change >= -1e-13:
            continue
        if would_lack(a, b, p, starts, traits, is_kept, members) or would_lack(
            b, a, q, starts, traits, is_kept, members
        ):
            continue
        shift(a, p, q, starts, traits, values, part, above, members)
        shift(b, q, p, starts, traits, values, part, above, members)
        gain -= 2 * change
    return gain
