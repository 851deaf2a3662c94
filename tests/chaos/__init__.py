"""Chaos: everything as real processes, faults by a seeded plan, and at the end nothing lost and nothing doubled.

``python -m tests.chaos --jobs 10000 --kills 300 --seed 7``, or ``make chaos``. The road through the folder:
``plan`` says what happens when, ``stage`` is what it happens to, ``load`` is who asks meanwhile, ``faults`` makes it
happen, ``verdict`` says what must be true afterwards, ``run`` ties them together.
"""
