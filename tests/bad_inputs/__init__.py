"""The registry of bad inputs: what people have, what they type, and what they are told; one module a room."""
