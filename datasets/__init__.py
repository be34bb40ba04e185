"""What a tile is, where it comes from, how it is split, framed and varied, and how its predictions are stored."""
