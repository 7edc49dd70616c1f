"""Who holds the right how often: the draw by itself, with the real function, and against a member that withholds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from scipy import stats

from ivr.ledger import chain
from ivr.ledger.crypto import Sodium, SodiumSecret
from ivr.ledger.wire import Genesis


def draws(members: int, blocks: int, seed: int) -> Counter[str]:
    """Who was drawn in a chain of draws, each by the one drawn before, with the function of RFC 9381."""
    chance = random.Random(seed)
    secrets = {f"m{i:03}": SodiumSecret(f"m{i:03}", chance.randbytes(32)) for i in range(members)}
    genesis = Genesis(consortium="fairness", members=tuple(s.member("http://x") for s in secrets.values()))
    state, checks = chain.start(genesis), Sodium()
    holder, next_seed = chain.holder(state, "", checks)
    held = Counter(dict.fromkeys(secrets, 0))
    for _ in range(blocks):
        held[holder.name] += 1
        state = state.replaced(height=state.height + 1, seed=next_seed, maker=holder)
        proof = secrets[holder.name].prove(chain.draw_alpha(state.chain, state.height, state.seed))
        holder, next_seed = chain.holder(state, proof, checks)
    return held


def chi_squared(held: Mapping[str, int]) -> float:
    """How probable a spread this wide or wider is if all are drawn alike."""
    return float(stats.chisquare(list(held.values())).pvalue)


def withholding(members: int, heights: int, seed: int, *, withholds: bool) -> float:
    """The share of blocks made by one member that, when it holds and has drawn another, makes no block.

    The strategy that could pay: it hopes that the draw of the next term, and of whoever wins it, favour it.
    """
    chance = random.Random(seed)
    made, holder = 0, chance.randrange(members)
    for _ in range(heights):
        following = chance.randrange(members)  # what the holder has drawn, and alone knows
        if withholds and holder == 0 and following != 0:
            holder = chance.randrange(members)  # the next term's lots: all members', its own among them
            following = chance.randrange(members)
        made += holder == 0
        holder = following
    return made / heights
