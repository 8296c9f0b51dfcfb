"""What this machine lacks for what a plan is about to run."""
