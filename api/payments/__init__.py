"""The payments family: what merchants' developers use."""
