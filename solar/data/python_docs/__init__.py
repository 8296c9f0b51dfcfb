"""The quickstart's corpus: the documentation that comes with the running Python, as text, questions and pairs."""
