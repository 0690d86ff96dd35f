"""A manager whose system calls fail now and then: it must neither die nor leak nor lie."""
