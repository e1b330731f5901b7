"""Commands killed at random moments and given again until they are done."""
