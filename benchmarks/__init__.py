"""How fast the kernel and its parts are, each beside a baseline that is measured in the same run."""
