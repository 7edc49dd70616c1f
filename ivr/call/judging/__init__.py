"""What a turn came to: from what was heard and what is known of the customer to one event of the flow.

Here, and only here, is it known which factor failed. It goes into the record of the turn (``Turn.decisions``), and
out of it to the flow goes :attr:`~ivr.call.flow.Event.AGAIN`, whatever it was.
"""

from ivr.call.judging.judge import Judge

__all__ = ["Judge"]
