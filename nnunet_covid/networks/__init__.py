"""Networks of the three methods. They know torch, timm and dynamic_network_architectures, never a trainer or a file."""
