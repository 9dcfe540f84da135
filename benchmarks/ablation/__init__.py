"""The ablation of the gradient checker: the cases of the corpus that need each constant and each part."""
