"""Make it so: walk the plan, run what is missing, publish what is done."""
