"""What every kind of training shares: run folder, states, updates, signals, progress, processes, settings."""
