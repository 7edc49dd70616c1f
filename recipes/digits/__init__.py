"""How the spoken-digit model in ``models/digits`` is trained: ``python -m recipes.digits --help``.

A Vosk (Kaldi nnet3) model for 8 kHz telephone speech: whole-word HMM states, a time-delay network trained
with lattice-free MMI against exactly the word loop it is decoded with. Read in this order: ``lexicon``
(words, states, costs), ``graphs`` (the loop, as training matrices and as Vosk's graphs), ``lfmmi``,
``network``, ``clips`` / ``synthetic`` / ``augment`` / ``mixing``, ``train``, ``kaldi`` (files).

With recordings of your own callers, in a folder with a ``manifest.tsv``, minutes of training from the shipped
weights are enough::

    python -m recipes.digits --speech DIR --own CALLERS --start models/digits --out mine --minutes 30
"""
