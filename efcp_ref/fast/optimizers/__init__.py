"""The optimizers of the contract at the paper's sizes: see `base` for what they share."""
