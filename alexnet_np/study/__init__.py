"""Looking at a network: summary, walk, timing."""
