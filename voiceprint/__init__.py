"""Speaker verification over the telephone: who speaks, from a few seconds of digits.

    encoder, scorer = Encoder.load(folder), Scorer.load(folder)
    voiceprint = enrol([encoder.embed(pcm) for pcm in three_recordings])
    decision = scorer.score(voiceprint, [encoder.embed(pcm_of_the_call)])
    decision.outcome is Outcome.MATCH

An :class:`Utterance` is one recording as an embedding with its quality; a :class:`Voiceprint` is a person.
Neither shows its vector in a repr. A model is a folder in SpeechBrain's layout; see ``models/voice``.
"""

from voiceprint.encoder import Encoder
from voiceprint.enrolment import EnrolmentLimits, enrol, extend
from voiceprint.errors import ListError, ModelError, PoorQuality, RecordingError, SealError, VoiceprintError
from voiceprint.scoring import Decision, Outcome, Scorer
from voiceprint.sealing import open_sealed, seal
from voiceprint.utterance import Utterance, Voiceprint

__all__ = [
    "Decision",
    "Encoder",
    "EnrolmentLimits",
    "ListError",
    "ModelError",
    "Outcome",
    "PoorQuality",
    "RecordingError",
    "Scorer",
    "SealError",
    "Utterance",
    "Voiceprint",
    "VoiceprintError",
    "enrol",
    "extend",
    "open_sealed",
    "seal",
]
