"""What the merchants' API costs."""
