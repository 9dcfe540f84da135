"""Generated photographs of handwritten digits, and the number of them that `jaxgd predict` reads correctly."""
