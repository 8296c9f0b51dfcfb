"""Three ways to compute attention over a row of documents, the choice between them, and what each way reads."""
