"""Records, and the leaderboards, tables and pages built from them."""
