"""Images with a mask each, whose every pixel says what is there."""
