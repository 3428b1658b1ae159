"""Where the crops or tiles of an image begin."""


def starts(length: int, size: int, step: int) -> list[int]:
    """Return the first pixels of the tiles along one side; the last lies flush with the edge.

    A side shorter than ``size`` has one tile, at 0.
    """
    last = max(length - size, 0)
    return sorted({*range(0, last + 1, step), last})


def aligned_tiles(length: int, size: int, overlap: int, factor: int) -> list[slice]:
    """Return overlapping tiles along one side, of which each begins at a multiple of ``factor``.

    So a network that halves its input sees the same pixels together in every tile, and the edge is
    padded as that of the whole. A side of up to ``size`` is one tile; else ``size`` is rounded down
    to a multiple, the overlap up, and the last tile may be shorter by less than ``factor``.
    """
    if length <= size:
        return [slice(0, length)]
    # at least one step more than the overlap
    size = max(size // factor, -(-overlap // factor) + 1) * factor
    step = (size - overlap) // factor * factor
    padded = length + -length % factor
    return [slice(start, min(start + size, length)) for start in starts(padded, size, step)]
