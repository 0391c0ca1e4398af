"""stepbench measures what a Transformer training step costs and writes the report about it."""
