"""Which faults happen in a run, in which order and how far apart: a function of the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: What dies by SIGKILL, and how often in proportion. The server dies rarely: everything else is away with it.
KILLS = {"engine": 7, "worker": 5, "supervisor": 2, "slack bot": 3, "guild bot": 3, "server": 3}
#: What else goes wrong, in proportion.
TROUBLES = {
    "freeze engine": 2,
    "freeze worker": 3,
    "freeze slack bot": 2,
    "freeze guild bot": 2,
    "freeze server": 2,
    "drop connections": 2,
    "slow network": 2,
    "mute network": 1,
    "full server": 2,
    "slow disk": 1,
    "full disk": 1,
    "out of memory": 3,
    "storm of errors": 3,
    "storm of limits": 3,
    "lost replies": 2,
    "drop sockets": 2,
    "step clock": 2,
}
#: Troubles beside each kill.
TROUBLES_PER_KILL = 0.7


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: A kill (``kill engine``) or one of ``TROUBLES``.
        pause_s: How long after the fault before it.
        lasts_s: How long a trouble lasts.
        pick: Which of several candidates, from 0 to 1.
        amount: How much, from 0 to 1; what it means is the fault's affair.
    """

    name: str
    pause_s: float
    lasts_s: float
    pick: float
    amount: float


def plan(seed: int, kills: int, pause_s: float = 1.0) -> list[Fault]:
    """The faults of a run.

    Args:
        seed: The same seed gives the same plan.
        kills: How many processes are killed with SIGKILL.
        pause_s: Mean pause between two faults.
    """
    dice = random.Random(seed)
    names = _dealt(dice, KILLS, kills, "kill ") + _dealt(dice, TROUBLES, round(kills * TROUBLES_PER_KILL), "")
    dice.shuffle(names)
    return [
        Fault(
            name,
            pause_s=dice.uniform(0.4, 1.6) * pause_s,
            lasts_s=dice.uniform(0.3, 3.0),
            pick=dice.random(),
            amount=dice.random(),
        )
        for name in names
    ]


def _dealt(dice: random.Random, shares: dict[str, int], count: int, prefix: str) -> list[str]:
    """So many names in these proportions; each appears once if there is room."""
    deck = list(shares)
    dice.shuffle(deck)
    more = [name for name, share in shares.items() for _ in range(share)]
    deck += dice.choices(more, k=max(0, count - len(deck)))
    return [prefix + name for name in deck[:count]]
