"""Generated photographs of handwritten digits with known labels, and how many of them `jaxgd predict` reads."""
