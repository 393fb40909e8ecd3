"""Data sets: real images, decoded to uint8 and served in an order that depends only on the seed and the position."""
