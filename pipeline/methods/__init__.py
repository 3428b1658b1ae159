"""How a restorer is adapted to real photographs: one file per method, named as in ``method.kind``.

Each holds one class derived from ``Method`` (method.py) that is built from
``(restorer, settings)``. A new method is one file here and its settings in
``pipeline/config/methods.py``; ``docs/extending.md`` has an example.
"""
