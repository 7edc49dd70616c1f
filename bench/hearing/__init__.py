"""How well digits are heard: test sets of people whom no training heard, recognisers side by side, figures."""
