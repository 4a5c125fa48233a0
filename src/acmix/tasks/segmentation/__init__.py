"""Training and using segmenters: networks that give every pixel a class."""
