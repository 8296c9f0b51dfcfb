"""From a layer plan to bytes: what each tensor is made of, written and verified."""
