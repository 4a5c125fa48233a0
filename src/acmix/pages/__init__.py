"""What the functions below return, as pictures and as HTML pages that open without a network."""
