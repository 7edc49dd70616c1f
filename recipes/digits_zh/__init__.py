"""How the Mandarin digit model in ``models/digits-zh`` is trained: ``python -m recipes.digits_zh --help``.

Experimental: no recordings of people saying these words were found, so every word that it knows was learnt from
espeak-ng's Mandarin. What people are like it has from the English model, whose layers it starts from, and from real
speech that it must not take for digits. Everything else is :mod:`recipes.digits`.
"""
