"""Training of the shipped speaker encoder: SpeechBrain's ECAPA-TDNN on 8 kHz telephone-channel speech.

    python -m recipes.voiceprint --speech ../shared/speech --out models/voice --minutes 75

``data`` reads and trims the recordings, ``channel`` draws telephone channels, ``train`` fits the network,
``export`` writes the model folder in SpeechBrain's layout, ``backend`` fits what is done to embeddings before they are
compared, ``calibrate`` turns scores into log-likelihood ratios on speakers that no gradient saw, ``compare`` says there
whether the back end earns its keep.
"""
