"""A simulated carrier: calls our service as Twilio would, and plays recorded people into it.

``run_call`` makes one call of one :class:`Scenario` and answers with a :class:`CallRecord`. What is
simulated, and where it differs from the real carrier, is said in the module that does it.
"""

from ivr.ops.simcarrier.record import CallRecord
from ivr.ops.simcarrier.run import run_call
from ivr.ops.simcarrier.scenario import Scenario, ScenarioError, load

__all__ = ["CallRecord", "Scenario", "ScenarioError", "load", "run_call"]
