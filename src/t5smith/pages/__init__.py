"""HTML and chart building blocks that inspection and reports share."""
