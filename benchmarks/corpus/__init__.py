"""Functions whose derivatives are known to be right or wrong: the corpus of the gradient checker."""
