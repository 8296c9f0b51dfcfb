"""The Lightning modules: one optimizer step, for next tokens and for preferences."""
