"""Preference training: DPO and its relatives, the frozen reference, and pairs ordered by difficulty."""
