"""Everything that has to be known of a GPU, in one command and a given time.

    python -m benchmarks.gpu [--minutes 9] [--out FOLDER] [--size paper|tiny]

Each section gets a share of the time; what one leaves, the next ones have. After every row
``gpu.json`` and ``gpu.md`` are written, so a run that is cut off keeps what it found. Without a
GPU the same runs on small sizes on the processor; its numbers then mean nothing.
"""
