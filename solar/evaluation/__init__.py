"""How good: loss on held-out text, exact tasks, the leaderboard's harness."""
