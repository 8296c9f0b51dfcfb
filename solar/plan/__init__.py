"""What is decided before work starts, without torch: order, ids, costs, and what must run."""
