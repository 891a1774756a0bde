"""What the shop does. No file here knows whether anything is encrypted."""
