"""Planning on a model: candidates, their returns, tables."""
