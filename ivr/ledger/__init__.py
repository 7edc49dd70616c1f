"""The consortium ledger: several institutions keep one book of settled payments together.

==============  ========================================================================================
member          an institution with a key of its own
entry           a settled payment, refund or settlement: an id and a salted commitment, nothing personal
block           a signed batch of entries, chained by the hash of the one before
right           to make the next block; at any time one member has it, drawn at random: the holder
grant           the proof of the draw, sealed to the next holder inside the block before
term            an attempt at a height; a silent holder is replaced by the next term
vote, co-sign   the two signatures of a member on a block; a quorum of the second makes it final
==============  ========================================================================================

``chain`` and ``rules`` are pure: no clock, network, store or random. ``node`` is the process around them.
docs/ledger.md has the protocol, and why it is safe.
"""
