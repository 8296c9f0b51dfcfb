"""The Lightning modules: one optimizer step, and next-token prediction."""
