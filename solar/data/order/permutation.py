"""A random permutation in constant memory: a Feistel network over the places."""

import hashlib

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Permutation:
    """A random order of 0 to `size` - 1, whose values are computed when they are read.

    >>> order = Permutation(10, "seed")
    >>> sorted(order.take(0, 10).tolist()) == list(range(10))
    True
    >>> order.take(4, 2).tolist() == order.take(0, 10).tolist()[4:6]
    True
    """

    def __init__(self, size: int, *key: object) -> None:
        """`key`: what the order is drawn from; equal keys give the same order."""
        self.size = size
        digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
        self._keys = np.frombuffer(digest, "<u8")
        self._half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)

    def take(self, start: int, count: int) -> Ints:
        """The values at places `start` to `start + count`."""
        values = self._shuffle(np.arange(start, start + count, dtype=np.uint64))
        while (outside := values >= self.size).any():  # the network permutes up to 4 n numbers: repeat until < n
            values[outside] = self._shuffle(values[outside])
        return values.astype(np.int64)

    def _shuffle(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            mixed = (right + key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(32))) & self._mask)
        return (left << self._half) | right
