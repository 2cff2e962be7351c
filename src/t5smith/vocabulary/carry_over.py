"""Which rows of a model's embedding a new vocabulary takes over: each new piece from old pieces.

A piece that both vocabularies have keeps its row. Another one gets the mean of the rows of the old pieces
that spell it, as the old tokenizer would cut it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t5smith.vocabulary.vocabulary import Vocabulary


@dataclass(frozen=True)
class CarriedRows:
    """For each new id the old ids whose rows it is the mean of.

    Attributes:
      old: int32, the old ids of all new ids, one after the other.
      ends: int64 (new ids,); where those of each new id end in `old`. None: its row is random.
      carried, composed, random: the number of new ids of each kind.
    """

    old: NDArray[np.int32]
    ends: NDArray[np.int64]
    carried: int
    composed: int
    random: int

    def rows(self, table: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """The new rows: (old ids, D) -> (new ids, D).

        A random row has the mean and the standard deviation of each column of the table.
        """
        counts = np.diff(self.ends, prepend=0)
        new = np.empty((len(counts), table.shape[1]), np.float32)
        known = np.flatnonzero(counts)
        # Rows are added up one place after the other, so no array is larger than the new table.
        begins = self.ends - counts
        new[known] = table[self.old[begins[known]]]
        for place in range(1, int(counts.max(initial=0))):
            longer = np.flatnonzero(counts > place)
            new[longer] += table[self.old[begins[longer] + place]]
        new[known] /= counts[known, None].astype(np.float32)
        unknown = np.flatnonzero(counts == 0)
        draws = np.random.default_rng(seed).standard_normal((len(unknown), table.shape[1]), np.float32)
        new[unknown] = table.mean(0) + draws * table.std(0)
        return new


def carried_rows(old: Vocabulary, new: Vocabulary) -> CarriedRows:
    """Compare two vocabularies.

    Control pieces and sentinels take over those of the same role and number. Sentinels beyond the old ones
    get the mean of all old sentinels.
    """
    roles = {new.pad_id: [old.pad_id], new.eos_id: [old.eos_id], new.unk_id: [old.unk_id]}
    sentinels = old.sentinel_ids.tolist()
    for number, own in enumerate(new.sentinel_ids.tolist()):
        roles[own] = sentinels[number : number + 1] or sentinels
    theirs, ours = old.all_pieces, new.all_pieces
    ids = {piece: number for number, piece in enumerate(theirs)}
    found: list[list[int]] = []
    for number, piece in enumerate(ours):
        if number in roles:
            found.append(roles[number])
        elif piece in ids and old.is_text[ids[piece]] == new.is_text[number]:
            found.append([ids[piece]])
        elif new.is_text[number]:
            found.append([one for one in old.spell(new.spelling(number)) if one != old.unk_id])
        else:
            found.append([])
    counts = np.array([len(one) for one in found])
    same = [len(one) == 1 and theirs[one[0]] == piece for one, piece in zip(found, ours, strict=True)]
    carried, random = sum(same), int((counts == 0).sum())
    flat = np.array([one for several in found for one in several], np.int32)
    return CarriedRows(flat, np.cumsum(counts), carried, len(found) - carried - random, random)
