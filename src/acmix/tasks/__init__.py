"""What trains and what uses the result, as functions that return data: `loop` is shared, each kind has its own room."""
