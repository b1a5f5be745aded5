"""Models of the kernels of macOS and the BSDs, as far as threepipe calls them."""
