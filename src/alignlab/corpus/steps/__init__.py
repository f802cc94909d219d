"""What is asked of a document, one step a file."""
