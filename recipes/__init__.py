"""How the shipped models were trained. One command each; see the README of each folder."""
