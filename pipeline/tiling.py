"""Where the crops or tiles of an image begin."""


def starts(length: int, size: int, step: int) -> list[int]:
    """Return the first pixels of the tiles along one side; the last lies flush with the edge.

    A side shorter than ``size`` has one tile, at 0.
    """
    last = max(length - size, 0)
    return sorted({*range(0, last + 1, step), last})
