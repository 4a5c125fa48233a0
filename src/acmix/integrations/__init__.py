"""Other people's frameworks: nothing here is loaded but by who has them."""
