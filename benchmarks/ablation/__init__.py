"""The ablation of the gradient checker: which cases of the corpus need each constant and each part."""
