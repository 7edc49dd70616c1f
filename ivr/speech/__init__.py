"""From mu-law frames to meaning: audio, recogniser, spoken numbers, which card was said."""
