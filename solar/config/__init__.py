"""What can be configured: dataclasses that say type, meaning and invariants; the values live in `conf/`."""
