"""The sections of the page, one module each: its tables and its charts."""
