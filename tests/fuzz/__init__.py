"""Arbitrary input for everything that reads input: clear errors, no crash, no hang.

Short in ``make test``; ``make fuzz`` runs ``LONG`` times as many examples. A hang ends by pytest's timeout.
"""
