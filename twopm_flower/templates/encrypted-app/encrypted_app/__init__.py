"""A Flower app whose updates are encrypted and whose rounds are on record."""
